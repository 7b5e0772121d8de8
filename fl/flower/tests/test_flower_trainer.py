"""A trainer never dies of what an app gives."""

from __future__ import annotations

import json
import sys
import threading
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from flip.app import DATA_VARIABLE, RESOURCES_VARIABLE
from flip_apps.files import as_arrays
from flip_apps.testing import app_job, write_project
from flip_flower.trainer_script import serve
from flip_nnunet.message import Message, failure_of
from flip_nnunet.site_settings import SiteSettings

PROJECT = b"""
[tool.flwr.app.components]
clientapp = "client_app:app"
"""
CLIENT = b"""
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    arrays = ArrayRecord({"w": Array(np.array(["text"]))})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"num-examples": 1, "dice": float("nan"), "loss": 0.5})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""


@pytest.mark.requirement("RUN-4", "RUN-10")
def test_what_an_app_gives_that_can_not_travel_is_an_answer_and_the_trainer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (DATA_VARIABLE, RESOURCES_VARIABLE, "SUPERNODE_NAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {"client_app.py": CLIENT, "pyproject.toml": PROJECT}
    job = json.dumps(app_job("run", files, framework="flower")).encode()
    write_project(tmp_path / "run", 2, 0, images=False)
    ours, theirs = Pipe()
    trainer = threading.Thread(target=serve, args=(theirs, "run", SiteSettings(tmp_path, 1), "KCH"), daemon=True)
    trainer.start()

    def ask(operation: str, message: Message) -> Message:
        for frame in (operation.encode(), job, message.to_bytes()):
            ours.send_bytes(frame)
        assert ours.poll(60), f"no answer to {operation}"
        return Message.from_bytes(ours.recv_bytes())

    weights = Message({"round": 0, "owner": "KCH", "ties": {}}, {"w": np.zeros(1, np.float32)})
    try:
        assert failure_of(ask("install", Message(arrays=as_arrays(files)))) is None
        failure = failure_of(ask("train_round", weights))
        assert failure is not None
        assert (failure.code, failure.detail) == ("app-answer-invalid", "train_round: a tensor is no array of numbers")
        assert ask("validate", weights).meta["metrics"] == {"dice": None, "loss": 0.5}
    finally:
        ours.close()
        trainer.join(60)
        sys.modules.pop("client_app", None)
