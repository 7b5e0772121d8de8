"""A trainer answers whatever it is asked, and never dies of what an app gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
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
