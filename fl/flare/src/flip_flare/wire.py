"""How a `flip_nnunet` message travels as a FLARE model: arrays as parameters, the rest as JSON. Nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from flip_nnunet.message import Message, canonical_json
from nvflare.app_common.abstract.fl_model import FLModel

TASK = "train"
"""The one task of a job; FLARE's own name for it, since its controllers treat late results of other tasks as errors."""

_OPERATION, _META = "flip_operation", "flip_meta"


@dataclass(frozen=True, slots=True)
class Request:
    """One operation that the hub asks of a site."""

    operation: str
    message: Message


def request_model(request: Request) -> FLModel:
    return FLModel(
        params=request.message.arrays,
        meta={_OPERATION: request.operation, _META: canonical_json(request.message.meta)},
    )


def read_request(model: FLModel) -> Request:
    """The request in a model. Raises ValueError for a model that holds none."""
    operation = (model.meta or {}).get(_OPERATION)
    if not isinstance(operation, str):
        raise ValueError(f"{_OPERATION}: must be the operation's name")
    return Request(operation, read_reply(model))


def reply_model(message: Message) -> FLModel:
    return FLModel(params=message.arrays, meta={_META: canonical_json(message.meta)})


def read_reply(model: FLModel) -> Message:
    """The message in a model. Raises ValueError for anything but a JSON object and arrays of numbers."""
    text = (model.meta or {}).get(_META)
    if not isinstance(text, str):
        raise ValueError(f"{_META}: must be a JSON text")
    meta = json.loads(text)
    if not isinstance(meta, dict):
        raise ValueError(f"{_META}: must be a JSON object")
    arrays = model.params or {}
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError(f"arrays: {name!r} must be an array of numbers")
    return Message(meta, arrays)
