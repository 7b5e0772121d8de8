"""A researcher's app, as its net's controller hands it over and tells of it."""

from typing import Any
from uuid import UUID

import pytest
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import AppPayload, Checkpoint, RunAssigned
from flip_contracts.trainer_node import MetricReported, ResultIgnored, StageReached, TrainingStarted
from flip_trainer_node import domain, telling

pytestmark = pytest.mark.requirement("RUN-10")

FILES = {"trainer.py": "a" * 64, "lib/models.py": "b" * 64}
RUN = RunAssigned(
    run_id=RunId(UUID(int=1)),
    project_id=ProjectId(UUID(int=2)),
    model_id=ModelId(UUID(int=3)),
    net="net1",
    attempt=2,
    fencing=7,
    framework="flower",
    job="custom",
    trusts=frozenset({"KCH", "UCLH"}),
    payload=AppPayload(mode="app", local_rounds=4).model_dump(mode="json"),
    files=FILES,
    query_digest="d" * 64,
)
TERMS = domain.Terms(profile={"name": "full"}, patience={"factor": 3})
COHORTS = {"KCH": "c" * 64}


@pytest.mark.requirement("FILE-6")
def test_an_apps_job_says_its_files_its_query_and_its_cohorts_by_their_digests() -> None:
    assert domain.job_record(RUN, TERMS, COHORTS) == {
        "kind": "app",
        "framework": "flower",
        "run_id": str(RUN.run_id),
        "project_id": str(RUN.project_id),
        "query": "d" * 64,
        "files": FILES,
        "cohorts": COHORTS,
        "patience": TERMS.patience,
        "seed": 1,
        "local_rounds": 4,
        "starting_round": 0,
    }
    assert domain.results_name(RUN) == f"flower-app_{RUN.run_id}.zip"


@pytest.mark.requirement("RUN-9")
def test_an_app_that_resumes_starts_behind_its_last_round_with_the_trusts_that_it_needs() -> None:
    resumed = RUN.model_copy(
        update={"checkpoint": Checkpoint(round=3, object="o", digest="e" * 64), "minimum_trusts": 1}
    )
    record = domain.job_record(resumed, TERMS, COHORTS)
    assert (record["starting_round"], record["minimum_sites"]) == (4, 1)


def line(kind: str, **facts: Any) -> telling.Line:
    return {"seq": 1, "attempt": 2, "kind": kind, **facts}


def test_each_point_of_an_apps_metrics_is_told_once_with_its_place() -> None:
    point = line("metric", round=1, site="KCH", name="loss", value=0.5, x=7.0, axis="epoch")
    [told] = telling.tell(point, RUN)
    assert isinstance(told, MetricReported)
    assert (told.trust, told.round, told.name, told.value, told.x, told.axis) == ("KCH", 1, "loss", 0.5, 7.0, "epoch")
    sites = {"KCH": {"metrics": {"loss": 0.5}}}
    assert telling.tell(line("round-complete", round=1, sites=sites), RUN) == []
    nnunet = RUN.model_copy(update={"job": "nnunet"})
    assert len(telling.tell(line("round-complete", round=1, sites=sites), nnunet)) == 1


def test_what_an_app_went_on_without_and_that_it_validates_are_told() -> None:
    [ignored] = telling.tell(line("result-ignored", operation="validate", site="UCLH", reason="app-failed"), RUN)
    assert isinstance(ignored, ResultIgnored)
    assert (ignored.trust, ignored.operation, ignored.reason) == ("UCLH", "validate", "app-failed")
    [reached] = telling.tell(line("validating"), RUN)
    assert isinstance(reached, StageReached)
    assert reached.stage == "validating"
    [_, started] = telling.tell(line("training-started", round=0, rounds=3, parameters=9), RUN)
    assert isinstance(started, TrainingStarted)
    assert started.rounds == 3
