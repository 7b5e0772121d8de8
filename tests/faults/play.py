"""Plays a case: a run on the local stack, a fault at its stage, and how both the run and the net come out of it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_client import Hub
from flip_local.layout import HUB, Layout, Net
from flip_local.story import Story
from flip_trainer_node.run_folder import RunFolder, Tail

from .cases import ANSWERS, Case, Killed, Outcome, Stage
from .disk import clear, fill
from .misbehaving import file_of
from .network import Ways
from .processes import NobodyThere, Victims

ROUNDS = 2
TRUST = "KCH"
_CUT_S = 60.0
_PATIENCE_S = 900.0
_LOOK_S, _ASK_S = 0.02, 0.5
"""How often files and processes are looked at for the moment of the fault, and the hub is asked for what came of it."""
_ENDED = frozenset({"finished", "failed", "stopped"})
_TOLD: dict[Stage, str] = {
    "fingerprint": "fingerprint",
    "preprocessing": "preprocessing",
    "training": "round-complete",
    "collecting": "exported",
}
"""The first line of this kind in the run's events begins the stage. Training is disturbed after a complete round:
there is one to go on from. `exporting` begins with the last of them, when nothing is left to train."""


class Stuck(Exception):
    """What should have come has not come; the text says what."""


@dataclass(frozen=True, slots=True)
class PlayedNet:
    """A net of a stack with a project that is ready to be trained, and who looks at it."""

    layout: Layout
    net: Net
    story: Story
    researcher: Hub
    admin: Hub
    ways: Ways

    def play(self, case: Case) -> Outcome:
        """Queue a run, let the fault come at the stage, wait for the run's end and for the net. Raises Stuck.

        A run may go on without the Trust where the Trust's answers are the fault.
        """
        if case.stage == "preprocessing":
            self._forget_what_is_preprocessed()
        fewest = 1 if case.fault in ANSWERS else None
        run_id = self.story.initiate(self.researcher, case.framework, ROUNDS, minimum_trusts=fewest)
        self._wait_for(lambda: self._has_come(case.stage, run_id), str(case))
        victims = Victims(self.layout, self.net, TRUST)
        with self._fault(case, victims, run_id):
            began = time.monotonic()
            run = self._wait_for(lambda: self._ended(run_id), f"{case}: the run's end", _ASK_S)
            done_s = time.monotonic() - began
        self._wait_for(self._is_free, f"{case}: a free net", _ASK_S)
        free_s = time.monotonic() - began
        self._wait_for(lambda: not victims.of_run(run_id), f"{case}: the end of the run's processes")
        why = " ".join(told for told in (run.get("reason"), run.get("detail")) if told)
        return Outcome(case, run["state"], why, run["attempt"], done_s, free_s, _left_out(run))

    def close(self) -> None:
        """End the sessions of who looks at it."""
        for hub in (self.researcher, self.admin):
            hub.session.close()

    @contextmanager
    def _fault(self, case: Case, victims: Victims, run_id: str) -> Iterator[None]:
        """The fault, until the run has ended; a cut network comes back by itself."""
        match case.fault:
            case "network":
                cut = self.ways.cut(self.net.name, _CUT_S)
                yield
                cut.result()
            case "disk":
                disk = self.layout.folder(TRUST, "work", self.net.name)
                fill(disk)
                try:
                    yield
                finally:
                    clear(disk)
            case "nan" | "other-plan" | "other-shape" | "stale-round" | "nothing" as answer:
                said = file_of(self.layout.trainer_python(self.net.framework).parents[1])
                said.write_text(json.dumps({TRUST: answer}))
                try:
                    yield
                finally:
                    said.unlink()
            case part:
                self._wait_for(lambda: _kills(victims, part, run_id), f"{case}: somebody to kill")
                yield

    def _has_come(self, stage: Stage, run_id: str) -> bool:
        if stage == "preparing":
            return (self._work(TRUST) / run_id).exists()
        at_hub = RunFolder(self._work(HUB) / run_id)
        if stage == "aggregation":
            weights = at_hub.round(1)
            return any(weights.parent.glob(f"{weights.stem}.*"))
        lines = list(Tail(at_hub).lines())
        if stage == "exporting":
            return any(line["kind"] == "round-complete" and line["round"] == ROUNDS - 1 for line in lines)
        return _TOLD[stage] in {line["kind"] for line in lines}

    def _work(self, owner: str) -> Path:
        return self.layout.folder(owner, "work", self.net.name) / "runs"

    def _forget_what_is_preprocessed(self) -> None:
        for trust in self.layout.trusts:
            for project in (self._work(trust) / ".site").glob("*"):
                shutil.rmtree(project / "preprocessed", ignore_errors=True)

    def _ended(self, run_id: str) -> dict[str, Any] | None:
        run = self.story.until(lambda: self.researcher.run(run_id), "the run's state")
        return run if run["state"] in _ENDED else None

    def _is_free(self) -> bool:
        nets = self.story.until(self.admin.nets, "the nets")
        return any(each["net"] == self.net.name and each["state"] == "free" for each in nets)

    def _wait_for(self, look: Callable[[], Any], what: str, pause_s: float = _LOOK_S) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise Stuck(what)
            time.sleep(pause_s)
        return found


def _left_out(run: dict[str, Any]) -> frozenset[str]:
    return frozenset(news["facts"]["reason"] for news in run["timeline"] if news["kind"] == "contribution-excluded")


def _kills(victims: Victims, part: Killed, run_id: str) -> bool:
    try:
        victims.kill(part, run_id)
    except NobodyThere:
        return False
    return True
