"""An app's configuration is read strictly: what is wrong is named, and nothing else is taken in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flip_contracts.apps import AppConfig, AppConfigInvalid, read_app_config, read_config, read_flower_app
from flip_contracts.projects import Framework

pytestmark = pytest.mark.requirement("FILE-4")


def config(**settings: Any) -> AppConfig:
    return read_app_config(json.dumps(settings).encode())


def test_an_app_without_a_configuration_has_the_defaults():
    assert read_app_config(None) == AppConfig()
    assert AppConfig().model_dump(by_alias=True) == {
        "GLOBAL_ROUNDS": 1,
        "LOCAL_ROUNDS": 1,
        "IGNORE_RESULT_ERROR": False,
        "AGGREGATOR": "InTimeAccumulateWeightedAggregator",
        "AGGREGATION_WEIGHTS": {},
        "BEST_METRIC": "val_accuracy",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("GLOBAL_ROUNDS", 0),
        ("GLOBAL_ROUNDS", 100),
        ("GLOBAL_ROUNDS", "2"),
        ("GLOBAL_ROUNDS", True),
        ("GLOBAL_ROUNDS", None),
        ("LOCAL_ROUNDS", 1.5),
        ("LOCAL_ROUNDS", 100),
        ("IGNORE_RESULT_ERROR", "true"),
        ("BEST_METRIC", ""),
        ("BEST_METRIC", 1),
        ("IGNORE_RESULT_ERROR", 1),
        ("AGGREGATOR", "FedAvg"),
        ("AGGREGATION_WEIGHTS", [1.0]),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_named(field: str, value: object):
    with pytest.raises(AppConfigInvalid) as refused:
        config(**{field: value})
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("weight", [-1, "1", None, float("inf"), float("nan")])
def test_a_wrong_weight_is_refused_with_its_trust_named(weight: object):
    with pytest.raises(AppConfigInvalid, match=r"^AGGREGATION_WEIGHTS\.KCH: "):
        config(AGGREGATION_WEIGHTS={"KCH": weight})


def test_a_weight_for_a_trust_that_takes_no_part_is_refused():
    with pytest.raises(AppConfigInvalid, match=r"^AGGREGATION_WEIGHTS\.GSTT: "):
        config(AGGREGATION_WEIGHTS={"GSTT": 1.0}).check_trusts({"KCH", "UCLH"})


def test_weights_with_which_nothing_counts_are_refused():
    with pytest.raises(AppConfigInvalid, match=r"^AGGREGATION_WEIGHTS: "):
        config(AGGREGATION_WEIGHTS={"KCH": 0, "UCLH": 0}).check_trusts({"KCH", "UCLH"})
    config(AGGREGATION_WEIGHTS={"KCH": 0}).check_trusts({"KCH", "UCLH"})


def test_where_trusts_may_be_absent_their_weights_may_stand_there_but_somebody_has_to_count():
    config(AGGREGATION_WEIGHTS={"UCLH": 2.0}).check_trusts({"KCH"}, some_absent=True)
    with pytest.raises(AppConfigInvalid, match="no Trust counts"):
        config(AGGREGATION_WEIGHTS={"KCH": 0, "UCLH": 2.0}).check_trusts({"KCH"}, some_absent=True)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(AppConfigInvalid) as refused:
        config(GLOBAL_ROUNDS=0, AGGREGATOR="no", AGGREGATION_WEIGHTS={"kch": 1.0})
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["GLOBAL_ROUNDS", "AGGREGATOR", "AGGREGATION_WEIGHTS.kch"]


def test_other_keys_are_left_to_the_app():
    assert config(LEARNING_RATE="fast", global_rounds=7) == AppConfig()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"{", "config.json"),
        (b"[]", "config.json"),
        (b"\xff", "config.json"),
        (b'{"GLOBAL_ROUNDS": 1, "GLOBAL_ROUNDS": 2}', "GLOBAL_ROUNDS"),
    ],
)
def test_what_is_no_json_object_or_says_a_thing_twice_is_refused(text: bytes, field: str):
    with pytest.raises(AppConfigInvalid, match=f"^{field}: "):
        read_app_config(text)


FLOWER = """
[tool.flwr.app.components]
clientapp = "app.client_app:app"
serverapp = "app.server_app:app"
[tool.flwr.app.config]
num-server-rounds = 3
[tool.flwr.app.config.optimizer]
rate = 0.1
"""


def flower(text: str = FLOWER, *more: str) -> dict[str, bytes]:
    return {"pyproject.toml": text.encode(), "app/client_app.py": b""} | dict.fromkeys(more, b"")


@pytest.mark.requirement("FILE-3")
@pytest.mark.parametrize(
    ("framework", "required"),
    [("nvflare", ["trainer.py", "validator.py"]), ("flower", ["client_app.py", "pyproject.toml"])],
)
def test_every_required_file_that_is_missing_is_named(framework: Framework, required: list[str]):
    with pytest.raises(AppConfigInvalid) as refused:
        read_config(framework, {"models.py": b""})
    assert [problem.field for problem in refused.value.problems] == required


@pytest.mark.requirement("FILE-5")
def test_a_flower_app_is_configured_by_its_pyproject():
    config = read_config("flower", flower())
    assert (config.global_rounds, config.local_rounds) == (3, 1)
    assert read_flower_app(flower()).run_config == {"num-server-rounds": 3, "optimizer.rate": 0.1}


@pytest.mark.requirement("FILE-5")
@pytest.mark.parametrize(
    ("files", "field"),
    [
        (flower("["), "pyproject.toml"),
        (flower("[tool.flwr]"), "pyproject.toml"),
        (flower("[tool.flwr]\napp = 1"), "pyproject.toml"),
        (flower(FLOWER.replace("app.client_app:app", "app.client_app")), "clientapp"),
        (flower(FLOWER.replace("app.client_app:app", "other:app")), "clientapp"),
        (flower(FLOWER, "app/server_app.py"), "serverapp"),
        (flower(FLOWER.replace("= 3", "= 0")), "num-server-rounds"),
        (flower(FLOWER.replace("= 3", '= "3"')), "num-server-rounds"),
        (flower(FLOWER.replace("= 3", "= 3\nlocal-epochs = 100")), "local-epochs"),
        (flower(FLOWER.replace("= 3", "= 3\nbest-metric = 1")), "best-metric"),
    ],
)
def test_what_is_wrong_with_a_flower_app_is_named(files: dict[str, bytes], field: str):
    with pytest.raises(AppConfigInvalid) as refused:
        read_config("flower", files)
    assert [problem.field for problem in refused.value.problems] == [field]
