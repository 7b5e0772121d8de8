"""Messages cross Flower's serialisation unchanged, and what is not a message is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from flip_flower.wire import Request, read_reply, read_request, reply_content, request_content
from flip_nnunet.message import Message as SiteMessage
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

ARRAYS = {
    "counts": np.arange(6, dtype=np.int64).reshape(2, 3),
    "weights": np.array([[1e-30, -0.0, np.inf]], np.float32),
    "mask": np.array([True, False]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
}


def across(content: RecordDict) -> RecordDict:
    contents = {number: part.deflate() for number, part in get_all_nested_objects(content).items()}
    arrived = inflate_object_from_contents(content.object_id, contents)
    assert isinstance(arrived, RecordDict)
    return arrived


def npz(**members: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def test_a_request_arrives_as_it_was_sent():
    message = SiteMessage({"round": 3, "names": ["ä", "b"], "nested": {"x": None}}, ARRAYS)
    sent = Request("train_round", {"run_id": "r"}, message.to_bytes())
    assert read_request(across(request_content(sent))) == sent


def test_a_reply_arrives_as_it_was_sent():
    got = read_reply(across(reply_content(SiteMessage({"cases": 12}, ARRAYS).to_bytes())))
    assert got.meta == {"cases": 12}
    assert got.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert got.arrays[name].dtype == array.dtype
        assert got.arrays[name].shape == array.shape
        assert got.arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"", "message"),
        (b"no archive at all", "message"),
        (npz(other=np.zeros(1)), "message"),
        (npz(meta=np.frombuffer(b"[1]", np.uint8)), "meta"),
        (npz(**{"meta": np.frombuffer(b"{}", np.uint8), "array/w": np.array(["text"])}), "'w'"),
    ],
)
def test_an_answer_that_is_no_message_is_refused_with_the_part_named(payload: bytes, named: str):
    with pytest.raises(ValueError, match=named):
        read_reply(reply_content(payload))


def test_an_answer_never_unpickles():
    with pytest.raises(ValueError, match="pickle"):
        read_reply(reply_content(npz(meta=np.frombuffer(b"{}", np.uint8), **{"array/w": np.array([object()])})))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (RecordDict(), "request"),
        (RecordDict({"request": ConfigRecord({"job": "{}"})}), "operation"),
        (RecordDict({"request": ConfigRecord({"operation": "plan", "job": "[]"})}), "job"),
        (RecordDict({"request": ConfigRecord({"operation": "plan", "job": "{}"})}), "message"),
        (
            RecordDict(
                {
                    "request": ConfigRecord({"operation": "plan", "job": "{}"}),
                    "message": ArrayRecord({"message": Array(np.zeros(3, np.float32))}),
                }
            ),
            "message",
        ),
    ],
)
def test_a_request_that_lacks_a_part_is_refused_with_the_part_named(content: RecordDict, named: str):
    with pytest.raises(ValueError, match=f"^{named}:"):
        read_request(content)
