"""How a `flip_nnunet` message travels as a FLARE model: arrays as parameters, the rest as JSON. Nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from flip_nnunet.message import Json, Message, canonical_json
from nvflare.app_common.abstract.fl_model import FLModel

TASK = "train"
"""The one task of a job; FLARE's own name for it, since its controllers treat late results of other tasks as errors."""

_OPERATION, _JOB, _META = "flip_operation", "flip_job", "flip_meta"


@dataclass(frozen=True, slots=True)
class Request:
    """One operation that the hub asks of a site for a job, which is the same in all requests of an attempt."""

    operation: str
    job: Json
    message: Message


def request_model(request: Request) -> FLModel:
    return FLModel(
        params=request.message.arrays,
        meta={
            _OPERATION: request.operation,
            _JOB: canonical_json(request.job),
            _META: canonical_json(request.message.meta),
        },
    )


def read_request(model: FLModel) -> Request:
    """The request in a model. Raises ValueError for a model that holds none."""
    operation = (model.meta or {}).get(_OPERATION)
    if not isinstance(operation, str):
        raise ValueError(f"{_OPERATION}: must be the operation's name")
    return Request(operation, _read_object(model, _JOB), read_reply(model))


def reply_model(message: Message) -> FLModel:
    return FLModel(params=message.arrays, meta={_META: canonical_json(message.meta)})


def read_reply(model: FLModel) -> Message:
    """The message in a model. Raises ValueError for anything but a JSON object and arrays of numbers."""
    meta = _read_object(model, _META)
    arrays = model.params or {}
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError(f"arrays: {name!r} must be an array of numbers")
    return Message(meta, arrays)


def _read_object(model: FLModel, key: str) -> Json:
    text = (model.meta or {}).get(key)
    if not isinstance(text, str):
        raise ValueError(f"{key}: must be a JSON text")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{key}: must be a JSON object")
    return value
