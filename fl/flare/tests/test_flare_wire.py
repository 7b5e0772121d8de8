"""Messages cross FLARE's serialisation unchanged, and what is not a message is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flip_flare.wire import Request, read_reply, read_request, reply_model, request_model
from flip_nnunet.message import Message
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

ARRAYS = {
    "counts": np.arange(6, dtype=np.int64).reshape(2, 3),
    "weights": np.array([[1e-30, -0.0, np.inf]], np.float32),
    "mask": np.array([True, False]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture(autouse=True, scope="module")
def _flare_serialisation() -> None:
    flare_decomposers.register()
    common_decomposers.register()


def across(model: FLModel) -> FLModel:
    return FLModelUtils.from_shareable(fobs.loads(fobs.dumps(FLModelUtils.to_shareable(model))))


def test_a_request_arrives_as_it_was_sent():
    sent = Request(
        "train_round", {"run_id": "r"}, Message({"round": 3, "names": ["ä", "b"], "nested": {"x": None}}, ARRAYS)
    )
    got = read_request(across(request_model(sent)))
    assert (got.operation, got.job, got.message.meta) == (sent.operation, sent.job, sent.message.meta)
    assert got.message.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert got.message.arrays[name].dtype == array.dtype
        assert got.message.arrays[name].shape == array.shape
        assert got.message.arrays[name].tobytes() == array.tobytes()


def test_a_reply_without_arrays_arrives():
    assert read_reply(across(reply_model(Message({"cases": 12})))) == Message({"cases": 12})


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (FLModel(params={}), "flip_meta"),
        (FLModel(params={}, meta={"flip_meta": "[1]"}), "flip_meta"),
        (FLModel(params={"w": np.array([object()])}, meta={"flip_meta": "{}"}), "'w'"),
        (FLModel(params={"w": [1.0, 2.0]}, meta={"flip_meta": "{}"}), "'w'"),
        (FLModel(params={"w": np.array(["text"])}, meta={"flip_meta": "{}"}), "'w'"),
    ],
)
def test_a_model_that_is_no_message_is_refused_with_the_part_named(model: FLModel, named: str):
    with pytest.raises(ValueError, match=named):
        read_reply(model)


def test_a_request_needs_an_operation():
    with pytest.raises(ValueError, match="flip_operation"):
        read_request(reply_model(Message()))
