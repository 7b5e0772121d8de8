"""A trainer answers whatever it is asked, and never dies of what an app gives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.files import as_arrays
from flip_apps.testing import app_job, write_project
from flip_flare import trainer
from flip_flare.wire import Request, read_reply, request_model
from flip_nnunet.message import Message, failure_of
from flip_nnunet.sandbox import SandboxSettings
from flip_nnunet.site_settings import SiteSettings

LOADED = "raise RuntimeError('the app was loaded')"


def answers(
    settings: SiteSettings, job: Mapping[str, Any], asked: list[tuple[str, Message]], patch: pytest.MonkeyPatch
) -> list[Message]:
    """What a trainer answers, in this process and FLARE's channel in memory; each as it would travel."""
    questions = [request_model(Request(operation, dict(job), message)) for operation, message in asked]
    sent: list[Message] = []
    channel = SimpleNamespace(
        is_running=lambda: bool(questions),
        receive=lambda: questions.pop(0),
        send=lambda model: sent.append(read_reply(model)),
    )
    patch.setattr(trainer, "flare", channel)
    trainer.serve("run", settings, "KCH")
    return sent


@pytest.mark.requirement("RUN-11")
def test_a_trainer_refuses_an_app_where_the_pod_is_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {"trainer.py": LOADED.encode(), "validator.py": LOADED.encode()}
    write_project(tmp_path / "run", 2, 0, images=False)
    settings = SiteSettings(tmp_path, 1, SandboxSettings(kind="pod"))
    [answer] = answers(settings, app_job("run", files), [("install", Message(arrays=as_arrays(files)))], monkeypatch)
    failure = failure_of(answer)
    assert failure is not None
    assert failure.code == "app-not-boxed"


TRAINER = b"""
import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor

class FLIP_TRAINER(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return DXO(DataKind.WEIGHTS, {"w": np.array([object()])}).to_shareable()
"""
VALIDATOR = b"""
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor

class FLIP_VALIDATOR(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return DXO(DataKind.METRICS, {"dice": float("nan"), "loss": 0.5}).to_shareable()
"""


@pytest.mark.requirement("RUN-4", "RUN-10")
def test_what_an_app_gives_that_can_not_travel_is_an_answer_and_the_trainer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {"trainer.py": TRAINER, "validator.py": VALIDATOR}
    write_project(tmp_path / "run", 2, 0, images=False)
    weights = Message({"round": 0, "owner": "KCH", "ties": {}}, {"w": np.zeros(1, np.float32)})
    asked = [("install", Message(arrays=as_arrays(files))), ("train_round", weights), ("validate", weights)]
    try:
        installed, trained, validated = answers(SiteSettings(tmp_path, 1), app_job("run", files), asked, monkeypatch)
    finally:
        for module in ("trainer", "validator"):
            sys.modules.pop(module, None)
    assert failure_of(installed) is None
    failure = failure_of(trained)
    assert failure is not None
    assert (failure.code, failure.detail) == ("app-answer-invalid", "train_round: a tensor is no array of numbers")
    assert validated.meta["metrics"] == {"dice": None, "loss": 0.5}
