"""Which fault comes when, on which framework, and what came of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from flip_contracts.projects import Framework

Fault = Literal["controller", "server", "worker", "client", "trainer"]
"""Who is killed: the net's controller, the framework's server, the worker, the framework's client and the process that
trains, the last three at one Trust."""
Stage = Literal["preparing", "fingerprint", "preprocessing", "training", "aggregation", "collecting"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
STAGES: tuple[Stage, ...] = get_args(Stage)
FRAMEWORKS: tuple[Framework, ...] = ("nvflare", "flower")
_BEFORE_TRAINERS: frozenset[Stage] = frozenset({"preparing"})


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one stage of a run."""

    framework: Framework
    fault: Fault
    stage: Stage

    def __str__(self) -> str:
        return f"{self.framework}: {self.fault} killed at {self.stage}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run ended, after how many attempts, and how long after the fault the run and the net were done."""

    case: Case
    state: str
    reason: str
    attempts: int
    done_s: float
    free_s: float


def cases() -> Iterator[Case]:
    """Every fault at every stage on both frameworks; nothing trains yet while the data sets are prepared."""
    for framework, fault, stage in product(FRAMEWORKS, FAULTS, STAGES):
        if fault != "trainer" or stage not in _BEFORE_TRAINERS:
            yield Case(framework, fault, stage)


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as a table in Markdown."""
    lines = [
        "| framework | killed | at | the run | attempts | run done after | net free after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in outcomes:
        ended = each.state if each.state == "finished" else f"{each.state}: {each.reason}"
        lines.append(
            f"| {each.case.framework} | {each.case.fault} | {each.case.stage} | {ended} | {each.attempts}"
            f" | {each.done_s:.1f} s | {each.free_s:.1f} s |"
        )
    return "\n".join(lines) + "\n"
