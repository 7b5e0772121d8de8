"""Plays a case: a run on the local stack, a fault at its stage, and how both the run and the net come out of it."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_client import Hub
from flip_local.layout import HUB, Layout, Net
from flip_local.story import Story

from .cases import Case, Outcome, Stage
from .processes import NobodyThere, Victims

ROUNDS = 3
TRUST = "KCH"
_PATIENCE_S = 600.0
_LOOK_S = 0.02
_ENDED = frozenset({"finished", "failed", "stopped"})
_TOLD: dict[Stage, str] = {
    "fingerprint": "fingerprint",
    "preprocessing": "preprocessing",
    "training": "round-complete",
    "collecting": "exported",
}
"""The first line of this kind in the run's events begins the stage. Training is disturbed after a complete round:
there is one to go on from."""


class Stuck(Exception):
    """What should have come has not come; the text says what."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack with a project that is ready to be trained, and who looks at it."""

    layout: Layout
    story: Story
    researcher: Hub
    admin: Hub

    def play(self, case: Case) -> Outcome:
        """Queue a run, kill at the stage, wait for the run's end and for the net. Raises Stuck."""
        net = next(net for net in self.layout.nets if net.framework == case.framework)
        if case.stage == "preprocessing":
            self._forget_what_is_preprocessed(net)
        run_id = self.story.initiate(self.researcher, case.framework, ROUNDS)
        self._wait_for(lambda: self._has_come(case.stage, net, run_id), str(case))
        victims = Victims(self.layout, net, TRUST)
        self._wait_for(lambda: _kills(victims, case, run_id), f"{case}: somebody to kill")
        began = time.monotonic()
        run = self._wait_for(lambda: self._ended(run_id), f"{case}: the run's end")
        done_s = time.monotonic() - began
        self._wait_for(lambda: self._is_free(net), f"{case}: a free net")
        free_s = time.monotonic() - began
        self._wait_for(lambda: not victims.trainers(run_id), f"{case}: the end of all that trained")
        return Outcome(case, run["state"], run.get("reason") or "", run["attempt"], done_s, free_s)

    def _has_come(self, stage: Stage, net: Net, run_id: str) -> bool:
        if stage == "preparing":
            return (self._work(TRUST, net) / run_id).exists()
        at_hub = self._work(HUB, net) / run_id
        if stage == "aggregation":
            return any((at_hub / "rounds").glob("round_00001.*"))
        return _TOLD[stage] in {line["kind"] for line in _lines(at_hub / "events.jsonl")}

    def _work(self, owner: str, net: Net) -> Path:
        return self.layout.folder(owner, "work", net.name) / "runs"

    def _forget_what_is_preprocessed(self, net: Net) -> None:
        for trust in self.layout.trusts:
            shutil.rmtree(self._work(trust, net) / ".site" / "preprocessed", ignore_errors=True)

    def _ended(self, run_id: str) -> dict[str, Any] | None:
        run = self.story.until(lambda: self.researcher.run(run_id), "the run's state")
        return run if run["state"] in _ENDED else None

    def _is_free(self, net: Net) -> bool:
        nets = self.story.until(self.admin.nets, "the nets")
        return any(each["net"] == net.name and each["state"] == "free" for each in nets)

    def _wait_for(self, look: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise Stuck(what)
            time.sleep(_LOOK_S)
        return found


def _kills(victims: Victims, case: Case, run_id: str) -> bool:
    try:
        victims.kill(case.fault, run_id)
    except NobodyThere:
        return False
    return True


def _lines(events: Path) -> list[dict[str, Any]]:
    if not events.exists():
        return []
    whole = events.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
