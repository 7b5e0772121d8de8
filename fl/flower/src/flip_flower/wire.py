"""How a `flip_nnunet` message travels as a Flower message: packed into one array, which Flower moves fastest.

Flower makes each array an object of its own over HTTP; a network's tensors one by one take a multiple of the time.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass

import numpy as np
from flip_nnunet.message import Json, canonical_json
from flip_nnunet.message import Message as SiteMessage
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

MESSAGE_TYPE = "train"
"""The one kind of Flower message in a run."""

_REQUEST, _OPERATION, _JOB = "request", "operation", "job"
_PAYLOAD = "message"


@dataclass(frozen=True, slots=True)
class Request:
    """One operation that the hub asks of a site for a job, which is the same in all requests of an attempt."""

    operation: str
    job: Json
    message: bytes
    """A `flip_nnunet.message.Message` by its `to_bytes`; what stands in between need not look into it."""


def request_content(request: Request) -> RecordDict:
    told = ConfigRecord({_OPERATION: request.operation, _JOB: canonical_json(request.job)})
    return RecordDict({_REQUEST: told, _PAYLOAD: _pack(request.message)})


def read_request(content: RecordDict) -> Request:
    """The request in a message. Raises ValueError for a message that holds none."""
    told = content.config_records.get(_REQUEST)
    if told is None:
        raise ValueError(f"{_REQUEST}: is missing")
    operation, job = told.get(_OPERATION), told.get(_JOB)
    if not isinstance(operation, str):
        raise ValueError(f"{_OPERATION}: must be the operation's name")
    if not isinstance(job, str) or not isinstance(read := json.loads(job), dict):
        raise ValueError(f"{_JOB}: must be a JSON object as text")
    return Request(operation, read, _unpack(content))


def reply_content(answer: bytes) -> RecordDict:
    return RecordDict({_PAYLOAD: _pack(answer)})


def read_reply(content: RecordDict) -> SiteMessage:
    """The site's answer in a message. Raises ValueError for anything but a JSON object and arrays of numbers."""
    try:
        message = SiteMessage.from_bytes(_unpack(content))
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{_PAYLOAD}: is not readable: {type(error).__name__}: {error}") from error
    for name, array in message.arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"arrays: {name!r} must be an array of numbers")
    return message


def _pack(message: bytes) -> ArrayRecord:
    return ArrayRecord({_PAYLOAD: Array(np.frombuffer(message, np.uint8))})


def _unpack(content: RecordDict) -> bytes:
    record = content.array_records.get(_PAYLOAD)
    if record is None or _PAYLOAD not in record:
        raise ValueError(f"{_PAYLOAD}: is missing")
    packed = record[_PAYLOAD].numpy()
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError(f"{_PAYLOAD}: must be bytes")
    return packed.tobytes()
