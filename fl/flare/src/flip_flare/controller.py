"""The hub's side of a job: binds the federated algorithms, nnU-Net's and that of apps, to FLARE's clients."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from flip_apps.conduct import conduct_app
from flip_apps.job import AppJob, is_app
from flip_nnunet.attempt import Attempt
from flip_nnunet.conduct import SILENT, Interrupted, conduct
from flip_nnunet.job import AnyJob
from flip_nnunet.message import MALFORMED, Answers, Message, SiteFailure
from flip_nnunet.patience import Clock, Patience
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.wf_comm_spec import WFCommSpec
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.workflows.model_controller import ModelController

from flip_flare.wire import TASK, Request, read_reply, request_model

_OPERATION_TIMEOUT_S = 24 * 3600
"""No operation of a site takes longer."""
_CHECK_PERIOD_S = 0.1
_FIRST_SIGN_S = 180.0
"""How long a client's job process and its trainer may take to start."""
_SILENCE_S = 60.0
"""After how long without a sign a client's job process counts as gone; it gives one every few seconds."""


class ListeningCommunicator(WFCommServer):
    """FLARE's communicator; it also remembers when it last heard of each client.

    FLARE itself misses it when a client is killed and started again within its heartbeat timeout: the new client does
    not know of the job, and the server waits for its answer for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard_at: dict[str, float] = {}

    def client_is_active(self, client_name: str, reason: str, fl_ctx: FLContext) -> None:
        self._heard_at[client_name] = time.monotonic()
        super().client_is_active(client_name, reason, fl_ctx)

    def is_silent(self, site: str, since: float) -> bool:
        """Whether `site` gave no sign for too long; `since` (monotonic) is when it was first expected to."""
        heard_at = self._heard_at.get(site)
        if heard_at is None:
            return time.monotonic() - since > _FIRST_SIGN_S
        return time.monotonic() - heard_at > _SILENCE_S


class NnunetController(ModelController):
    """Runs one attempt: `flip_nnunet.conduct`, or `flip_apps.conduct` where the job is a researcher's app."""

    def __init__(self, run_folder: str, attempt: int, trusts: list[str], job: dict[str, Any]) -> None:
        # Errors of single sites are left to the algorithm, which knows how many sites a round needs.
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=_CHECK_PERIOD_S)
        self._attempt = Attempt(str(job.get("run_id")), attempt, tuple(trusts), Path(run_folder), job)
        self._clients = ListeningCommunicator()
        self._given_up: str | None = None
        self._silent: set[str] = set()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Remember what FLARE tells by events only: why it gives the job up, and whose task ended in an error."""
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self._given_up = str(fl_ctx.get_prop(FLContextKey.EVENT_DATA, "unknown"))
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            peer = fl_ctx.get_peer_context()
            if peer is not None and not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
                self._silent.add(peer.get_identity_name())
        super().handle_event(event_type, fl_ctx)

    def run(self) -> None:
        """Called by FLARE once the clients that the job needs have started."""
        conducted = conduct_app if is_app(self._attempt.job) else conduct
        conducted(self._attempt, lambda job: FlareSites(self, self._attempt.trusts, job), self._silent)

    def set_communicator(self, communicator: WFCommSpec) -> None:
        """Called by FLARE with a communicator of its own, which this one replaces."""
        super().set_communicator(self._clients)

    def ask(
        self, request: Request, sites: list[str], patience: Patience
    ) -> Generator[tuple[str, FLModel | None], None, None]:
        """Give the sites a task, then give each answer as it comes, by the name that FLARE authenticated.

        None stands for the answer of a site that failed or is gone. An answer that was given is not kept; those that
        come meanwhile wait. Raises `Interrupted`. Closed early it takes the task back.
        """
        started = time.monotonic()
        clock = Clock(patience, len(sites), started)
        arrived: SimpleQueue[FLModel] = SimpleQueue()
        waiting = set(sites)
        self._silent.clear()
        self.send_model(TASK, request_model(request), sites, timeout=_OPERATION_TIMEOUT_S, callback=arrived.put)
        try:
            while waiting:
                standing = self.get_num_standing_tasks()  # asked first: what comes before a task's end has then arrived
                for answer in _taken_from(arrived):
                    site = answer.meta["client_name"]
                    waiting.discard(site)
                    clock.answered(time.monotonic())
                    yield site, answer
                    del answer  # or the hub would keep one more model while it waits
                if self.abort_signal.triggered:
                    raise self._interruption()
                late = not standing or clock.is_over(time.monotonic())
                self._silent |= {site for site in waiting if late or self._clients.is_silent(site, started)}
                for site in sorted(waiting & self._silent):
                    waiting.discard(site)
                    yield site, None
        finally:
            self.cancel_all_tasks()

    def _interruption(self) -> Interrupted:
        if self._given_up is not None:
            return Interrupted("job-given-up", self._given_up)
        return Interrupted("job-aborted", "FLARE was told to abort the job")


class FlareSites:
    """`flip_nnunet.federation.Sites` by FLARE tasks. Who answered is what FLARE's mTLS says, not what a reply says."""

    def __init__(self, controller: NnunetController, trusts: Sequence[str], job: AnyJob | AppJob) -> None:
        self._controller = controller
        self._trusts = list(trusts)
        self._job = job.model_dump(mode="json")
        self._patience = job.patience

    def names(self) -> list[str]:
        return list(self._trusts)

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        """As `federation.Sites`. Raises `Interrupted` if the job is over."""
        targets = self._trusts if sites is None else list(sites)
        request = Request(operation, self._job, message)
        with closing(self._controller.ask(request, targets, self._patience)) as answers:
            for site, answer in answers:
                yield site, SILENT.as_message() if answer is None else _message(answer)
                del answer


def _taken_from(arrived: SimpleQueue[FLModel]) -> Iterator[FLModel]:
    """What has arrived; waits a moment for the first."""
    patience_s = _CHECK_PERIOD_S
    while True:
        try:
            yield arrived.get(timeout=patience_s)
        except Empty:
            return
        patience_s = 0


def _message(answer: FLModel) -> Message:
    try:
        return read_reply(answer)
    except ValueError as error:
        return SiteFailure(MALFORMED, str(error)).as_message()
