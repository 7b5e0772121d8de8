"""The main job over the whole stack, while every platform service is killed once; then the broker loses its disk."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest
from flip_client import Hub, TrustOperator
from flip_client.operations import HUB_SERVICES, Operations
from flip_local import control
from flip_local.credentials import Credentials
from flip_local.held_out import judge
from flip_local.layout import Layout
from flip_local.parts.kafka import Node
from flip_local.stack import usual
from flip_local.story import ADMIN, DATASET_ID, Story
from flip_local.testing import layout_beside_tests

pytestmark = pytest.mark.system

ROUNDS = 4
PATIENCE_S = 300

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
    layout = layout_beside_tests("system-stack", 250)
    control.up(layout, usual(layout))
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


@pytest.fixture(scope="module")
def killer(stack: Layout) -> Killer:
    return Killer(stack)


@pytest.fixture(scope="module")
def story(stack: Layout, killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    return Story(stack, folder, rounds=ROUNDS, step=killer.at_step, news=killer.at_news)


@pytest.mark.requirement(
    "ACC-1", "PROJ-1", "PROJ-5", "PROJ-6", "COHORT-1", "COHORT-9", "IMG-1", "IMG-5", "IMG-6", "MODEL-1", "RUN-1",
    "RUN-2", "RUN-5", "RUN-7", "NNU-2", "NNU-4", "NNU-5", "BUS-1", "AUD-1",
)  # fmt: skip
def test_the_main_job_completes_although_every_service_dies_once(stack: Layout, killer: Killer, story: Story):
    story.play()
    assert set(_services(stack)) <= set(killer.killed)

    told = [entry["type"].split(".")[2] for entry in story.ledger()]
    for earlier, later in pairwise(TOLD):
        assert told.index(earlier) < told.index(later)
    assert told.count("RoundComplete") >= ROUNDS
    assert told.count("RunFinished") == 1

    assert story.results is not None
    scores = judge(stack, story.results, DATASET_ID, story.folder)
    assert set(scores) == set(stack.trusts)
    for score in scores.values():
        assert set(score) == {"striatum", "thalamus", "hippocampus"}


@pytest.mark.requirement("BUS-3")
def test_every_projection_is_made_again_row_for_row_after_the_broker_has_lost_its_disk(stack: Layout, story: Story):
    before = {entry["position"]: entry for entry in story.ledger()}
    broker = ["kafka", "kafka-storage", "topics"]
    control.stop(stack, [*_services(stack), *broker])
    shutil.rmtree(Node.of(stack).folder / "data")
    control.up(stack, usual(stack))

    with _operators(stack) as operators:
        sent = {name: operations.refill()["events"] for name, operations in operators.items()}
        assert sent["projects"] > 0
        for name, operations in operators.items():
            _wait_until_heard(name, operations)
        rebuilds = {name: _rebuilt(operations) for name, operations in operators.items()}
    assert {name: _differing(rebuild) for name, rebuild in rebuilds.items() if _differing(rebuild)} == {}
    assert sum(rebuild["events"] for rebuild in rebuilds.values()) > len(before)
    assert {entry["position"]: entry for entry in story.ledger() if entry["position"] in before} == before


@contextmanager
def _operators(stack: Layout) -> Iterator[dict[str, Operations]]:
    """Each service's operations, as those who may: an admin at the hub, the operator at a Trust."""
    credentials = Credentials(stack)
    hub = Hub(stack.gateway_url, stack.ca)
    hub.login(ADMIN, credentials.bootstrap_password)
    with ExitStack() as opened:
        opened.callback(hub.session.close)
        found = {name: Operations(hub.session.request, name) for name in HUB_SERVICES}
        nets = {net.name for net in stack.nets if not net.on_request}
        found |= {net: Operations(hub.session.request, f"trainer-node/{net}") for net in nets}
        for name in set(_services(stack)) - set(found):
            service, trust = name.split("-")
            token = credentials.operator_token_file(trust).read_text()
            operator = TrustOperator(stack.url(name), token)
            opened.callback(operator.close)
            found[name] = Operations(operator.ask, "trainer-node" if service in nets else service)
        yield found


def _wait_until_heard(name: str, operations: Operations) -> None:
    """Until everything that took effect here is on the broker again."""
    deadline = time.monotonic() + PATIENCE_S
    missing = None
    while missing != 0:
        assert time.monotonic() < deadline, f"{name} still misses {missing} events"
        missing = _rebuilt(operations)["missing"]


def _rebuilt(operations: Operations) -> dict[str, Any]:
    asked = operations.rebuild()
    deadline = time.monotonic() + PATIENCE_S
    while asked["state"] not in {"done", "failed"}:
        assert time.monotonic() < deadline, asked
        asked = operations.rebuild_of(asked["rebuild_id"])
    assert asked["state"] == "done", asked
    return asked


def _differing(rebuild: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in rebuild["tables"] if each["differing"]]


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


def _services(stack: Layout) -> list[str]:
    return [name for name, part in usual(stack).items() if part.group == "services"]
