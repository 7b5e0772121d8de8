"""Which fault comes when, on which framework, and what came of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, get_args

from flip_contracts.projects import Framework
from pydantic import TypeAdapter

Killed = Literal["controller", "server", "worker", "client", "trainer"]
"""Who is killed: the net's controller, the framework's server, the worker, the framework's client and the process that
trains, the last three at one Trust."""
Cut = Literal["network", "disk"]
"""What one Trust does without: the way to the net's server, for a minute, and room on its disk, until the run ends."""
Answer = Literal["nan", "other-plan", "other-shape", "stale-round", "nothing"]
"""What one Trust answers a round with, from its second round on."""
Fault = Killed | Cut | Answer
Stage = Literal["preparing", "fingerprint", "preprocessing", "training", "aggregation", "exporting", "collecting"]

ANSWERS: tuple[Answer, ...] = get_args(Answer)
FAULTS: tuple[Fault, ...] = (*get_args(Killed), *get_args(Cut), *ANSWERS)
STAGES: tuple[Stage, ...] = get_args(Stage)
FRAMEWORKS: tuple[Framework, ...] = ("nvflare", "flower")

_LEFT_OUT_FOR: Mapping[Fault, str] = {
    "nan": "not-finite",
    "other-plan": "wrong-plan",
    "other-shape": "wrong-shape",
    "stale-round": "wrong-round",
    "nothing": "no-answer",
}
"""Why a Trust's answer does not count."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one stage of a run."""

    framework: Framework
    fault: Fault
    stage: Stage

    def __str__(self) -> str:
        return f"{self.framework}: {self.fault} at {self.stage}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run ended, after how many attempts, and how long after the fault the run and the net were done.

    state: `finished`, `failed` or `stopped`; or `stuck`, with what did not come as the reason.
    left_out: why answers of the Trust did not count.
    """

    case: Case
    state: str
    reason: str
    attempts: int = 0
    done_s: float = 0
    free_s: float = 0
    left_out: frozenset[str] = frozenset()

    @property
    def is_as_promised(self) -> bool:
        """Whether the run came through, or said why it could not: a full disk; wrong answers do not count."""
        if self.case.fault in ANSWERS:
            return self.state == "finished" and self.left_out == {_LEFT_OUT_FOR[self.case.fault]}
        return self.state == "finished" or (self.case.fault == "disk" and "disk-full" in self.reason)

    def line(self) -> str:
        """It as `played_before` reads it."""
        return _OUTCOME.dump_json(self).decode() + "\n"


_OUTCOME = TypeAdapter(Outcome)


def cases() -> Iterator[Case]:
    """Every fault at every stage on both frameworks.

    Nothing trains yet while the data sets are prepared, and only in training is a Trust asked to train a round.
    """
    for framework, fault, stage in product(FRAMEWORKS, FAULTS, STAGES):
        if fault == "trainer" and stage == "preparing":
            continue
        if fault not in ANSWERS or stage == "training":
            yield Case(framework, fault, stage)


def played_before(kept: Path) -> Iterator[Outcome]:
    """The outcomes that earlier calls kept in this file, a line each."""
    if kept.exists():
        yield from map(_OUTCOME.validate_json, kept.read_text().splitlines())


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as a table in Markdown, in the order of `cases`."""
    lines = [
        "| framework | fault | at | the run | attempts | run done after | net free after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = list(cases())
    for each in sorted(outcomes, key=lambda outcome: order.index(outcome.case)):
        ended = each.state if each.state == "finished" else f"{each.state}: {each.reason}"
        without = f", without its answers: {', '.join(sorted(each.left_out))}" if each.left_out else ""
        lines.append(
            f"| {each.case.framework} | {each.case.fault} | {each.case.stage} | {ended}{without} | {each.attempts}"
            f" | {each.done_s:.1f} s | {each.free_s:.1f} s |"
        )
    return "\n".join(lines) + "\n"
