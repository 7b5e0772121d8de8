"""A Trust's executor lets go of what nobody waits for."""

from __future__ import annotations

import httpx
import pytest
from flip_flower.executor import UntilOver
from flip_flower.resident import AnswerUnwanted
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
