"""The hub's side of a run: binds the federated algorithms, nnU-Net's and that of apps, to Flower's nodes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import httpx
from flip_apps.conduct import conduct_app
from flip_apps.job import AppJob, is_app
from flip_nnunet.attempt import Attempt
from flip_nnunet.conduct import SILENT, Interrupted, conduct
from flip_nnunet.job import AnyJob
from flip_nnunet.message import MALFORMED, Answers, Message, SiteFailure
from flip_nnunet.patience import Clock
from flwr.app import Message as FlowerMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.run import RunNotRunningException
from flwr.superlink.grid import HttpGrid

from flip_flower.pause import Pause
from flip_flower.wire import MESSAGE_TYPE, Request, read_reply, request_content

log = logging.getLogger(__name__)

_OPERATION_TIMEOUT_S = 24 * 3600
"""No operation of a site takes longer."""
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_LOOK_S = 1.0
_FIRST_SIGN_S = 180.0
"""How long a Trust's node may take to connect. Later one that is away counts as gone: Flower itself waits a minute."""


def run_attempt(grid: Grid, attempt: Attempt) -> None:
    """Run one attempt: `flip_nnunet.conduct`, or `flip_apps.conduct` where the job is a researcher's app."""
    silent: set[str] = set()
    conducted = conduct_app if is_app(attempt.job) else conduct
    conducted(attempt, lambda job: FlowerSites(grid, attempt.trusts, job, silent), silent)


class FlowerSites:
    """`flip_nnunet.federation.Sites` by Flower messages. Who answered is what a node's key says, not what a reply says.

    silent: filled with the sites that left the last operation unanswered.
    """

    def __init__(self, grid: Grid, trusts: Sequence[str], job: AnyJob | AppJob, silent: set[str]) -> None:
        self._grid = grid
        self._trusts = list(trusts)
        self._job = job.model_dump(mode="json")
        self._patience = job.patience
        self._silent = silent
        self._wait_until = time.monotonic() + _FIRST_SIGN_S

    def names(self) -> list[str]:
        return list(self._trusts)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        """As `federation.Sites`. Raises `Interrupted` if the run is over."""
        targets = self._trusts if sites is None else list(sites)
        self._silent.clear()
        try:
            yield from self._answers(Request(operation, self._job, message.to_bytes()), targets)
        except RunNotRunningException as error:
            raise _stopped() from error
        except (ObjectPushError, ObjectPullError) as error:
            raise self._why_a_part_was_lost() from error
        except httpx.HTTPError as error:
            raise Interrupted("net-broken", f"the SuperLink does not serve the run: {type(error).__name__}") from error

    def _answers(self, request: Request, targets: Sequence[str]) -> Answers:
        nodes = self._connected(targets)
        for site in sorted(set(targets) - nodes.keys()):
            yield site, self._silence(site)
        clock = Clock(self._patience, len(targets), time.monotonic())
        waiting = self._push(request, nodes) if nodes else {}
        del request  # which may be a whole model
        pause, looked_at = Pause(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S), time.monotonic()
        while waiting:
            pause.wait()
            for number, site in list(waiting.items()):  # one by one, so that only one answer is in memory
                for answer in self._grid.pull_messages([number]):
                    del waiting[number]
                    clock.answered(time.monotonic())
                    yield site, self._read(site, answer)
            if time.monotonic() - looked_at > _LOOK_S:
                looked_at = time.monotonic()
                gone = set(nodes) if clock.is_over(looked_at) else self._gone(nodes)
                for number, site in [(number, site) for number, site in waiting.items() if site in gone]:
                    del waiting[number]
                    yield site, self._silence(site)

    def _connected(self, targets: Sequence[str]) -> dict[str, NodeInfo]:
        """The nodes of those targets that are connected; at the start of a run all are waited for."""
        while True:
            nodes = {site: node for site, node in _nodes(self._grid).items() if site in targets}
            if len(nodes) == len(targets) or time.monotonic() > self._wait_until:
                break
            time.sleep(_LOOK_S)
        self._wait_until = time.monotonic()
        return nodes

    def _push(self, request: Request, nodes: Mapping[str, NodeInfo]) -> dict[str, str]:
        """Send the request; returns the site of each message's id."""
        content = request_content(request)
        sites = sorted(nodes)
        messages = [
            FlowerMessage(content, nodes[site].node_id, MESSAGE_TYPE, ttl=_OPERATION_TIMEOUT_S) for site in sites
        ]
        numbers = list(self._grid.push_messages(messages))
        if len(numbers) != len(sites) or not all(numbers):
            raise Interrupted("net-broken", "the SuperLink did not take the messages of an operation")
        return dict(zip(numbers, sites, strict=True))

    def _read(self, site: str, answer: FlowerMessage) -> Message:
        if answer.has_error():
            log.warning("%s: no answer (Flower's code %s)", site, answer.error.code)
            return self._silence(site)
        try:
            return read_reply(answer.content)
        except ValueError as error:
            return SiteFailure(MALFORMED, str(error)).as_message()

    def _silence(self, site: str) -> Message:
        self._silent.add(site)
        return SILENT.as_message()

    def _why_a_part_was_lost(self) -> Interrupted:
        """Of a run that is stopped Flower loses the messages first."""
        try:
            _nodes(self._grid)
        except RunNotRunningException:
            return _stopped()
        return Interrupted("net-broken", "the SuperLink lost a part of a message")

    def _gone(self, asked: Mapping[str, NodeInfo]) -> set[str]:
        """The sites whose node is away, or was: one that was started again knows nothing of what it was asked."""
        now = _nodes(self._grid)
        return {
            site
            for site, node in asked.items()
            if site not in now or now[site].last_activated_at != node.last_activated_at
        }


def _stopped() -> Interrupted:
    return Interrupted("job-aborted", "Flower was told to stop the run")


def _nodes(grid: Grid) -> dict[str, NodeInfo]:
    """The connected nodes of the net, each by the Trust its key was registered for."""
    if not isinstance(grid, HttpGrid):
        raise TypeError(f"grid: {type(grid).__name__} does not tell its nodes' names")
    return {node.name: node for node in grid.get_nodes()}
