"""A Trust's executor lets go of what nobody waits for."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from flip_apps.files import as_arrays
from flip_apps.testing import app_job, write_project
from flip_flower.executor import Trainers, UntilOver
from flip_flower.resident import AnswerUnwanted
from flip_flower.wire import Request
from flip_nnunet.message import Message, failure_of
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.protobuf.client import ProtobufRequestContext

NODE, RUN = 7, 9


def pull(until: UntilOver, part: str) -> int:
    request = PullObjectRequest(node=Node(node_id=NODE), run_id=RUN, object_id=part)
    context = ProtobufRequestContext("PullObject", request, httpx.Request("POST", "http://node"))
    return until.intercept(context, lambda _: httpx.Response(200)).status_code


def test_a_part_that_does_not_come_is_given_up_once_the_run_is_over():
    asked: list[tuple[int, int]] = []

    def goes_on(node: int, run: int) -> bool:
        asked.append((node, run))
        return len(asked) < 2

    until = UntilOver(goes_on)
    assert pull(until, "a") == 200
    assert pull(until, "a") == 200
    with pytest.raises(AnswerUnwanted):
        pull(until, "a")
    assert asked == [(NODE, RUN), (NODE, RUN)]


def test_parts_that_come_at_once_cost_no_question_to_the_hub():
    def never(node: int, run: int) -> bool:
        raise AssertionError("the hub was asked")

    until = UntilOver(never)
    assert [pull(until, part) for part in "abc"] == [200, 200, 200]


@pytest.mark.requirement("RUN-11")
def test_the_hub_hears_that_a_trainer_took_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "prepared.json").write_text(json.dumps({"project_id": "project"}))
    monkeypatch.setenv("FLIP_FLOWER_RUNS", str(tmp_path))
    monkeypatch.setenv("FLIP_FLOWER_MINIMUM_CASES", "1")
    monkeypatch.setenv("FLIP_FLOWER_SANDBOX", json.dumps({"time_s": 1}))  # it takes longer than that to start
    trainers = Trainers("KCH", lambda node, run: True)
    question = Request("describe", {"run_id": "run"}, Message().to_bytes())
    failure = failure_of(Message.from_bytes(trainers.ask(question, NODE, RUN)))
    assert failure is not None
    assert failure.code == "time-limit"


@pytest.mark.requirement("RUN-11")
def test_a_trainer_refuses_an_app_where_the_pod_is_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {"client_app.py": b"raise RuntimeError('the app was loaded')", "pyproject.toml": b""}
    write_project(tmp_path / "run", 2, 0, images=False)
    monkeypatch.setenv("FLIP_FLOWER_RUNS", str(tmp_path))
    monkeypatch.setenv("FLIP_FLOWER_MINIMUM_CASES", "1")
    monkeypatch.setenv("FLIP_FLOWER_SANDBOX", json.dumps({"kind": "pod"}))
    trainers = Trainers("KCH", lambda node, run: True)
    question = Request(
        "install", app_job("run", files, framework="flower"), Message(arrays=as_arrays(files)).to_bytes()
    )
    try:
        failure = failure_of(Message.from_bytes(trainers.ask(question, NODE, RUN)))
    finally:
        trainers.end()
    assert failure is not None
    assert failure.code == "app-not-boxed"
