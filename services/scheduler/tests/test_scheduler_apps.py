"""What a researcher's own app lacks before a run of it may start."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from flip_chassis.refusal import Refused
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.files import AppConfiguration
from flip_contracts.scheduler import Resources
from flip_scheduler import domain
from flip_scheduler.apps import App, ModelFile
from flip_scheduler.domain import Model, Readiness, Request

RUN, PROJECT, MODEL = RunId(UUID(int=1)), ProjectId(UUID(int=2)), ModelId(UUID(int=3))
NVFLARE, FLOWER = Model(MODEL, PROJECT, "nvflare", "custom"), Model(MODEL, PROJECT, "flower", "custom")
TRUSTS = frozenset({"KCH", "UCLH"})
READY = Readiness(TRUSTS, TRUSTS, {trust: {"lesion": 1} for trust in TRUSTS}, True)
QUERY, APP = "a" * 64, {"mode": "app"}
COMPONENTS = AppConfiguration(client_file="app/client_app.py", server_file="app/server_app.py")


def app_of(*paths: str, configuration: AppConfiguration | None = None, **changes: Any) -> App:
    """An app whose files are all accepted; `configuration` is what its configuration file says."""
    files = [ModelFile(path, "accepted", "b" * 64, configuration=configuration) for path in paths]
    return App(files, changes.get("queries", dict.fromkeys(TRUSTS, QUERY)))


def missing(model: Model, request: Request) -> list[dict[str, Any]]:
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, model, READY, request)
    return caught.value.facts["missing"]


WHOLE = app_of("trainer.py", "validator.py")


@pytest.mark.requirement("RUN-10")
def test_an_app_is_queued_with_its_files_its_query_and_the_local_rounds_that_were_given() -> None:
    queued = domain.initiate(RUN, NVFLARE, READY, Request(APP | {"local_rounds": 5}, app=WHOLE))
    assert queued.files == {"trainer.py": "b" * 64, "validator.py": "b" * 64}
    assert (queued.query_digest, queued.payload["local_rounds"], queued.resources) == (QUERY, 5, Resources())


@pytest.mark.requirement("RUN-1")
@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "payload.mode"),
        ({"mode": "training"}, "payload.mode"),
        (APP | {"local_rounds": 0}, "payload.local_rounds"),
        (APP | {"local_rounds": 100}, "payload.local_rounds"),
        (APP | {"num_rounds": 3}, "payload.num_rounds"),
    ],
)
def test_a_wrong_field_of_an_apps_payload_is_named(payload: Mapping[str, Any], field: str) -> None:
    assert [each["field"] for each in missing(NVFLARE, Request(payload, app=WHOLE))] == [field]


def test_an_app_is_no_payload_of_nnunet() -> None:
    nnunet = Model(MODEL, PROJECT, "nvflare", "nnunet")
    assert "payload.mode" in [each["field"] for each in missing(nnunet, Request(APP))]


@pytest.mark.requirement("FILE-3")
@pytest.mark.parametrize(
    ("model", "paths", "fields"),
    [
        (NVFLARE, (), ["trainer.py", "validator.py"]),
        (NVFLARE, ("trainer.py", "src/validator.py"), ["validator.py"]),
        (FLOWER, ("app/client_app.py",), ["pyproject.toml"]),
        (FLOWER, ("app/pyproject.toml", "client_app.py"), ["pyproject.toml"]),
        (FLOWER, ("pyproject.toml",), ["client_app.py"]),
    ],
)
def test_the_files_that_a_framework_needs_are_named(model: Model, paths: tuple[str, ...], fields: list[str]) -> None:
    found = missing(model, Request(APP, app=app_of(*paths)))
    assert [(each["code"], each["field"]) for each in found] == [("file-missing", field) for field in fields]


@pytest.mark.requirement("FILE-5")
def test_a_flower_apps_components_must_fit_its_files() -> None:
    one = app_of("app/client_app.py", "pyproject.toml", configuration=COMPONENTS)
    assert domain.initiate(RUN, FLOWER, READY, Request(APP, app=one)).framework == "flower"
    other = app_of("src/client_app.py", "app/server_app.py", "pyproject.toml", configuration=COMPONENTS)
    assert [each["field"] for each in missing(FLOWER, Request(APP, app=other))] == ["clientapp", "serverapp"]


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("weights", "field"),
    [
        ({"GSTT": 1.0}, "AGGREGATION_WEIGHTS.GSTT"),
        ({"KCH": 0.0, "UCLH": 0.0}, "AGGREGATION_WEIGHTS"),
    ],
)
def test_weights_in_an_apps_configuration_must_fit_the_projects_trusts(weights: dict[str, float], field: str) -> None:
    app = app_of(
        "trainer.py", "validator.py", "config.json", configuration=AppConfiguration(aggregation_weights=weights)
    )
    [found] = missing(NVFLARE, Request(APP, app=app))
    assert (found["code"], found["file"], found["field"]) == ("config-not-valid", "config.json", field)


def test_weights_stand_in_an_apps_configuration_and_nowhere_else() -> None:
    [found] = missing(NVFLARE, Request(APP, aggregation_weights={"KCH": 1.0}, app=WHOLE))
    assert found["field"] == "aggregation_weights"


@pytest.mark.parametrize("queries", [{}, {"KCH": QUERY}, {"KCH": QUERY, "UCLH": "c" * 64}])
def test_the_cohort_must_be_frozen_of_one_query_at_every_trust(queries: dict[str, str]) -> None:
    found = missing(NVFLARE, Request(APP, app=app_of("trainer.py", "validator.py", queries=queries)))
    assert [each["code"] for each in found] == ["cohort-not-frozen"]
