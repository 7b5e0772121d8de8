"""An NVFLARE app meets what it would meet in a job of NVFLARE's own, and its answers are read strictly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.files import as_arrays
from flip_apps.job import AppJob
from flip_apps.site import AppWorker, Place, Trained
from flip_apps.testing import PROJECT_ID, QUERY, app_job, write_project
from flip_contracts.apps import AppConfig
from flip_flare.app import NvflareApp
from flip_nnunet.message import Message, SiteFailed, failure_of

pytestmark = pytest.mark.requirement("RUN-10")

TRAINER = """
import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.shareable import Shareable, make_reply

class FLIP_TRAINER(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        data = from_shareable(shareable).data
        BODY
"""
VALIDATOR = """
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor

class FLIP_VALIDATOR(Executor):
    def __init__(self, validate_task_name="validate"):
        super().__init__()

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return DXO(DataKind.METRICS, {"dice": 0.5, "owner": shareable.get_header("model_owner")}).to_shareable()
"""
MODELS = """
import torch

def get_model():
    return torch.nn.BatchNorm1d(2)
"""
WEIGHTS = {"w": np.ones(3, np.float32), "n": np.array(4)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Where an app is; what it imports is forgotten afterwards."""
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "app").mkdir()
    job = AppJob.model_validate(app_job("run", {"trainer.py": b""}))
    yield Place("KCH", tmp_path / "app", tmp_path / "workspace", job, AppConfig())
    for module in ("trainer", "validator", "models"):
        sys.modules.pop(module, None)


def files(body: str = "return shareable", **changed: str | None) -> dict[str, str]:
    given = {"trainer": TRAINER.replace("BODY", body), "validator": VALIDATOR, "models": MODELS} | changed
    return {f"{name}.py": text for name, text in given.items() if text is not None}


def app(place: Place, body: str = "return shareable", **changed: str | None) -> NvflareApp:
    for name, text in files(body, **changed).items():
        (place.app / name).write_text(text)
    return NvflareApp(place)


def trained(place: Place, body: str) -> Trained:
    return app(place, body).train(2, WEIGHTS)


@pytest.mark.parametrize(
    "body",
    [
        "return DXO(DataKind.WEIGHTS, {k: v + 1 for k, v in data.items()}).to_shareable()",
        "return DXO(DataKind.WEIGHT_DIFF, {k: np.ones_like(v) for k, v in data.items()}).to_shareable()",
        "import torch as t; return DXO(DataKind.WEIGHTS, {k: t.as_tensor(data[k]) + 1 for k in data}).to_shareable()",
    ],
)
def test_weights_and_differences_as_arrays_or_tensors_come_to_the_same(place: Place, body: str):
    new = trained(place, body).weights
    assert new["w"].tolist() == [2.0, 2.0, 2.0]
    assert int(new["n"]) == 5
    assert {name: array.dtype for name, array in new.items()} == {n: a.dtype for n, a in WEIGHTS.items()}


def test_a_round_weighs_its_iterations_and_carries_the_apps_score(place: Place):
    meta = "{MetaKey.NUM_STEPS_CURRENT_ROUND: 12, MetaKey.INITIAL_METRICS: np.float32(0.5)}"
    answer = trained(place, f"return DXO(DataKind.WEIGHTS, data, {meta}).to_shareable()")
    assert (answer.steps, answer.score) == (12, 0.5)


@pytest.mark.parametrize(
    ("metrics", "score"),
    [("0.5", 0.5), ("{'val_accuracy': 0.5, 'loss': 9}", 0.5), ("{'loss': 9}", None), ("{'val_accuracy': '1'}", None)],
)
def test_of_several_metrics_of_the_weights_that_were_given_the_configured_one_is_the_score(
    place: Place, metrics: str, score: float | None
):
    body = f"return DXO(DataKind.WEIGHTS, data, {{MetaKey.INITIAL_METRICS: {metrics}}}).to_shareable()"
    assert trained(place, body).score == score


MONAI = """
from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject

class FLIP_TRAINER(ClientAlgo):
    def initialize(self, extra=None):
        pass

    def train(self, data, extra=None):
        self.weights = data.weights

    def get_weights(self, extra=None):
        return ExchangeObject(self.weights, METRICS weight_type=WeightType.WEIGHTS, statistics={"num_steps": 3})
"""


@pytest.mark.parametrize(("metrics", "score"), [("metrics={'val_accuracy': 0.5},", 0.5), ("", None)])
def test_an_algorithm_of_monais_scores_the_weights_by_the_metrics_of_its_reply(
    place: Place, metrics: str, score: float | None
):
    answer = app(place, trainer=MONAI.replace("METRICS", metrics)).train(0, WEIGHTS)
    assert (answer.steps, answer.score) == (3, score)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return make_reply('EXECUTION_EXCEPTION')", "app-failed"),
        ("return make_reply('patient ACC00001')", "app-failed"),
        ("return None", "app-answer-invalid"),
        ("return Shareable()", "app-answer-invalid"),
        ("return DXO(DataKind.METRICS, {'a': 1}).to_shareable()", "app-answer-invalid"),
        ("return DXO(DataKind.WEIGHT_DIFF, {'w': np.ones(1), 'n': np.array(0)}).to_shareable()", "wrong-shape"),
        (
            "return DXO(DataKind.WEIGHTS, data, {MetaKey.NUM_STEPS_CURRENT_ROUND: 0}).to_shareable()",
            "wrong-weight",
        ),
        (
            "return DXO(DataKind.WEIGHTS, data, {MetaKey.NUM_STEPS_CURRENT_ROUND: 1.5}).to_shareable()",
            "wrong-weight",
        ),
    ],
)
def test_an_answer_that_is_none_is_a_failure_with_its_reason_and_not_in_the_apps_words(
    place: Place, body: str, code: str
):
    with pytest.raises(SiteFailed) as failed:
        trained(place, body)
    assert failed.value.failure.code == code
    assert "ACC00001" not in failed.value.failure.detail


def test_an_app_finds_its_round_its_site_and_a_folder_of_the_run(place: Place):
    body = """
        engine = fl_ctx.get_engine()
        run = engine.get_workspace().get_run_dir(fl_ctx.get_job_id())
        found = (fl_ctx.get_identity_name(), shareable.get_header("current_round"), fl_ctx.get_prop("current_round"))
        assert found == ("KCH", 2, 2), found
        assert run.endswith("/workspace"), run
        assert fl_ctx.get_peer_context().get_identity_name() == "server"
        self.log_error(fl_ctx, "an error is an event, too")
        return DXO(DataKind.WEIGHTS, data).to_shareable()"""
    assert trained(place, body).weights.keys() == WEIGHTS.keys()


def test_metrics_by_flip_and_by_nvflares_own_calls_are_points(place: Place):
    body = """
        from flip.app import Trust
        from nvflare.apis.analytix import AnalyticsDataType
        from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
        Trust().metric("LOSS", 1.5, fl_ctx, None, None)
        Trust().metric("LOSS", 1.0, fl_ctx, 7, "epoch")
        send_analytic_dxo(self, create_analytic_dxo("dice", 0.5, AnalyticsDataType.SCALAR, global_step=9), fl_ctx)
        send_analytic_dxo(self, create_analytic_dxo("note", "text", AnalyticsDataType.TEXT), fl_ctx)
        return DXO(DataKind.WEIGHTS, data).to_shareable()"""
    points = [(point.label, point.value, point.x, point.axis) for point in trained(place, body).points]
    assert points == [("LOSS", 1.5, 2.0, "round"), ("LOSS", 1.0, 7.0, "epoch"), ("dice", 0.5, 9.0, "step")]


def test_a_model_is_validated_with_its_owners_name_and_only_numbers_are_metrics(place: Place):
    assert app(place).validate("UCLH", WEIGHTS) == {"dice": 0.5}


def test_the_first_weights_are_those_of_the_apps_model(place: Place):
    assert set(app(place).first_weights()) == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_an_app_is_told_its_project_and_query_if_it_asks(place: Place):
    asks = TRAINER.replace(
        "    def execute",
        "    def __init__(self, project_id='', query=''):\n        self.told = project_id, query\n\n    def execute",
    )
    body = "import torch; return DXO(DataKind.WEIGHTS, {str(self.told): np.ones(1)}).to_shareable()"
    made = app(place, trainer=asks.replace("BODY", body))
    assert list(made.train(0, WEIGHTS).weights) == [str((PROJECT_ID, QUERY))]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"models": None}, "models.py"),
        ({"trainer": "class Trainer: pass"}, "FLIP_TRAINER"),
        ({"trainer": "class FLIP_TRAINER: pass"}, "neither an Executor nor a ClientAlgo"),
    ],
)
def test_an_app_that_lacks_something_is_refused_with_what_it_lacks(
    place: Place, changed: dict[str, str | None], named: str
):
    with pytest.raises(SiteFailed, match=named) as failed:
        app(place, "return shareable", **changed).first_weights()
    assert failed.value.failure.code == "app-incomplete"


def test_of_an_error_in_the_apps_code_its_kind_and_place_leave_the_site_but_not_its_words(place: Place, tmp_path: Path):
    given = {name: text.encode() for name, text in files("raise KeyError('patient ACC00001')").items()}
    job = AppJob.model_validate(app_job("run", given))
    write_project(tmp_path / "data", 2, 0, images=False)
    worker = AppWorker("KCH", tmp_path / "data", tmp_path / "work", job, 1, NvflareApp, boxed=True)
    assert failure_of(worker.handle("install", Message(arrays=as_arrays(given)))) is None
    failure = failure_of(worker.handle("train_round", Message({"round": 0, "ties": {}}, WEIGHTS)))
    assert failure is not None
    assert (failure.code, failure.detail) == ("app-failed", "KeyError at trainer.py:10; the site's log has more")
