"""The main job over the whole stack, while every platform service is killed once."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from flip_local import control
from flip_local.held_out import judge
from flip_local.layout import Layout
from flip_local.stack import parts
from flip_local.story import DATASET_ID, Story
from flip_local.testing import layout_for_tests

pytestmark = pytest.mark.system

ROUNDS = 4

KILLED_AS_A_STEP_BEGINS = {
    "The researcher creates": ["auth", "projects"],
    "The project is staged": ["cohort", "cohort-KCH"],
    "Each Trust freezes": ["projects", "cohort-UCLH", "imaging"],
    "Each Trust's operator": ["imaging-UCLH"],
    "The researcher creates a model": ["scheduler"],
    "The results": ["files", "audit"],
}
KILLED_AT_NEWS = {
    "KCH: imported": ["imaging-KCH"],
    "stage  stage=preprocessing": ["net1-UCLH"],
    "round ": ["net1"],
}
WORKER = "net1-KCH"


@pytest.fixture(scope="module")
def stack() -> Iterator[Layout]:
    """A whole stack of its own beside that of the other tests."""
    layout = layout_for_tests()
    layout = dataclasses.replace(layout, state=layout.state.with_name("system-stack"), port_base=layout.port_base + 250)
    control.up(layout, parts(layout))
    yield layout
    control.down(layout)


class Killer:
    """Kills parts with SIGKILL when the story comes to where they are to die, each once."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.killed: list[str] = []
        self.rounds = 0

    def at_step(self, text: str) -> None:
        for begins, names in KILLED_AS_A_STEP_BEGINS.items():
            if text.startswith(begins):
                self._kill(names)

    def at_news(self, text: str) -> None:
        for begins, names in KILLED_AT_NEWS.items():
            if text.startswith(begins):
                self._kill(names)
        self.rounds += text.startswith("round ")
        if self.rounds >= 3:
            self._kill([WORKER])

    def _kill(self, names: list[str]) -> None:
        for name in names:
            if name not in self.killed:
                control.kill(self.layout, name)
                self.killed.append(name)


@pytest.mark.requirement(
    "ACC-1", "PROJ-1", "PROJ-5", "PROJ-6", "COHORT-1", "COHORT-9", "IMG-1", "IMG-5", "IMG-6", "MODEL-1", "RUN-1",
    "RUN-2", "RUN-5", "RUN-7", "NNU-2", "NNU-4", "NNU-5", "BUS-1", "AUD-1",
)  # fmt: skip
def test_the_main_job_completes_although_every_service_dies_once(stack: Layout, tmp_path: Path):
    killer = Killer(stack)
    story = Story(stack, tmp_path, rounds=ROUNDS, step=killer.at_step, news=killer.at_news)
    story.play()

    services = {name for name in parts(stack) if _is_service(name)}
    assert services <= set(killer.killed)

    told = [entry["type"].split(".")[2] for entry in story.ledger()]
    for earlier, later in pairwise(TOLD):
        assert told.index(earlier) < told.index(later)
    assert told.count("RoundComplete") >= ROUNDS
    assert told.count("RunFinished") == 1

    assert story.results is not None
    scores = judge(stack, story.results, DATASET_ID, tmp_path)
    assert set(scores) == set(stack.trusts)
    for score in scores.values():
        assert set(score) == {"striatum", "thalamus", "hippocampus"}


TOLD = [
    "ProjectCreated",
    "CohortQuerySaved",
    "CohortAnswered",
    "ProjectStaged",
    "ProjectApproved",
    "CohortFrozen",
    "ImagingReady",
    "LabelsRegistered",
    "EnrichmentConfirmed",
    "RunQueued",
    "RunAssigned",
    "PlanAgreed",
    "RoundComplete",
    "ResultsPublished",
    "RunFinished",
]


def _is_service(name: str) -> bool:
    return name.split("-", maxsplit=1)[0] in {
        "auth", "projects", "cohort", "imaging", "files", "scheduler", "audit", "net1",
    }  # fmt: skip
