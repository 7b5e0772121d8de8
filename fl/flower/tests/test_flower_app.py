"""A Flower app meets what it would meet at a node of Flower's own, and its answers are read strictly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.job import AppJob
from flip_apps.site import Place
from flip_apps.testing import PROJECT_ID, QUERY, app_job
from flip_contracts.apps import AppConfig
from flip_flower.app import FlowerClientApp
from flip_nnunet.message import SiteFailed

pytestmark = pytest.mark.requirement("RUN-10")

PROJECT = """
[tool.flwr.app.components]
clientapp = "client_app:app"
[tool.flwr.app.config]
num-server-rounds = 4
optimizer.name = "adam"
"""
CLIENT = """
import os
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    arrays, told, config = message.content["arrays"], message.content["config"], context.run_config
    metrics = {"num-examples": 3}
    TRAIN
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 2, "DICE": 0.5})}), reply_to=message)
"""
WEIGHTS = {"w": np.ones(3, np.float32), "n": np.array(4)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where an app is; what it imports is forgotten afterwards."""
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE, "SUPERNODE_NAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in ("client_app", "models"):
        sys.modules.pop(module, None)


def app(folder: Path, body: str = "pass", client: str = CLIENT, starting_round: int = 0) -> FlowerClientApp:
    texts = {"pyproject.toml": PROJECT, "client_app.py": client.replace("TRAIN", body)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    files = {name: text.encode() for name, text in texts.items()}
    job = AppJob.model_validate(app_job("run", files, framework="flower", starting_round=starting_round))
    config = AppConfig.model_validate({"GLOBAL_ROUNDS": 4, "LOCAL_ROUNDS": 2})
    return FlowerClientApp(Place("KCH", folder, folder / "workspace", job, config))


def test_an_app_finds_its_round_its_site_its_project_and_its_own_configuration(folder: Path):
    body = f"""
    assert told["server-round"] == 3, told  # Flower's rounds count from 1
    assert os.environ["SUPERNODE_NAME"] == context.node_config["site"] == "KCH"
    assert (config["flip-project-id"], config["flip-cohort-query"]) == ({PROJECT_ID!r}, {QUERY!r})
    assert (config["num-server-rounds"], config["local-epochs"], config["optimizer.name"]) == (4, 2, "adam")"""
    assert app(folder, body.strip()).train(2, WEIGHTS).steps == 3


def test_weights_come_back_as_they_were_sent(folder: Path):
    new = app(folder).train(0, WEIGHTS).weights
    assert {name: (array.dtype, array.shape, array.tolist()) for name, array in new.items()} == {
        name: (array.dtype, array.shape, array.tolist()) for name, array in WEIGHTS.items()
    }


@pytest.mark.requirement("RUN-8")
def test_a_key_says_where_its_point_is_and_a_plain_one_is_at_the_round(folder: Path):
    body = 'metrics |= {"LOSS@epoch.x_5": 1.5, "LOSS@time (s).x_0.5": 2, "DICE": 0.25, "all": [1.0, 2.0]}'
    points = app(folder, body).train(2, WEIGHTS).points
    assert {(point.label, point.value, point.x, point.axis) for point in points} == {
        ("LOSS", 1.5, 5.0, "epoch"),
        ("LOSS", 2.0, 0.5, "time (s)"),
        ("DICE", 0.25, 2.0, "round"),
    }


def test_the_metrics_of_a_model_are_those_of_evaluate(folder: Path):
    assert app(folder).validate("SRV_FL_global_model.pt", WEIGHTS) == {"DICE": 0.5}


@pytest.mark.requirement("RUN-9")
def test_a_model_is_validated_at_the_round_that_was_trained_last_even_by_an_attempt_that_trains_none(folder: Path):
    told = CLIENT.replace('"DICE": 0.5', '"DICE": message.content["config"]["server-round"]')
    resumed = app(folder, client=told, starting_round=4)
    assert resumed.validate("SRV_FL_global_model.pt", WEIGHTS) == {"DICE": 4}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("metrics.pop('num-examples')", "wrong-weight"),
        ("metrics['num-examples'] = -1", "wrong-weight"),
        ("metrics['num-examples'] = 0.5", "wrong-weight"),
        ("metrics['num-examples'] = float('nan')", "wrong-weight"),
        ("return Message(RecordDict({'arrays': arrays}), reply_to=message)", "app-answer-invalid"),
        ("return None", "app-answer-invalid"),
        ("return Message(Error(7, 'patient ACC00001'), reply_to=message)", "app-failed"),
    ],
)
def test_an_answer_that_is_none_is_a_failure_with_its_reason_and_not_in_the_apps_words(
    folder: Path, body: str, code: str
):
    with pytest.raises(SiteFailed) as failed:
        app(folder, body).train(0, WEIGHTS)
    assert failed.value.failure.code == code
    assert "ACC00001" not in failed.value.failure.detail


def test_an_app_that_can_not_evaluate_is_refused_before_it_trains(folder: Path):
    with pytest.raises(SiteFailed, match="evaluate") as failed:
        app(folder, client=CLIENT.partition("@app.evaluate()")[0].replace("TRAIN", "pass"))
    assert failed.value.failure.code == "app-incomplete"
