"""What travels between the hub and a site: JSON and numpy arrays, nothing else, nothing pickled."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = dict[str, Array]
"""A network's tensors by name; only tensors that own their storage (see `flip_nnunet.train`)."""
Json = dict[str, Any]

NO_ANSWER = "no-answer"
"""The failure of a site that ended or cannot be reached."""
MALFORMED = "malformed-answer"
"""The failure of a site whose answer cannot be read."""

_META = "meta"
_ARRAY = "array/"
_FAILURE = "failure"
_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Message:
    """A question to a site or its answer. `meta` is a JSON object; `arrays` hold numbers only."""

    meta: Json = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The message as an `.npz`: member `meta` (UTF-8 JSON as uint8), one member `array/NAME` an array."""
        members: dict[str, Array] = {_META: np.frombuffer(json.dumps(self.meta, allow_nan=False).encode(), np.uint8)}
        members |= {_ARRAY + name: array for name, array in self.arrays.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **members)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Message:
        """Read what `to_bytes` wrote. Raises ValueError for anything else, pickled arrays included."""
        with np.load(io.BytesIO(data), allow_pickle=False) as members:
            meta = json.loads(members[_META].tobytes())
            arrays = {name.removeprefix(_ARRAY): members[name] for name in members.files if name.startswith(_ARRAY)}
        if not isinstance(meta, dict):
            raise ValueError("meta: must be a JSON object")
        return cls(meta, arrays)


@dataclass(frozen=True, slots=True)
class SiteFailure:
    """Why a site could not answer: a stable code and one sentence without personal data."""

    code: str
    detail: str

    def as_message(self) -> Message:
        return Message({_FAILURE: {"code": self.code, "detail": self.detail}})


class SiteFailed(Exception):
    """Raised inside a site: it cannot do what it was asked."""

    def __init__(self, code: str, detail: str) -> None:
        self.failure = SiteFailure(code, detail)
        super().__init__(f"{code}: {detail}")


Answers = Generator[tuple[str, Message], None, None]
"""Each site that was asked with its answer, one after the other as they come. Close it to wait for no more."""


class SitesFailed(Exception):
    """Some sites gave no usable answer."""

    code = "sites-failed"

    def __init__(self, operation: str, failures: Mapping[str, SiteFailure]) -> None:
        self.operation = operation
        self.failures = dict(failures)
        told = "; ".join(f"{site}: {failure.code} ({failure.detail})" for site, failure in sorted(failures.items()))
        super().__init__(f"{operation} failed at {told}")


def failure_of(reply: Message) -> SiteFailure | None:
    """The failure that a reply reports, if it does. A code that is none is not repeated: a site may have made it up."""
    if _FAILURE not in reply.meta:
        return None
    match reply.meta[_FAILURE]:
        case {"code": str(code), "detail": str(detail)} if _CODE.fullmatch(code):
            return SiteFailure(code, detail)
        case _:
            return SiteFailure(MALFORMED, "reports a failure without a reason code")


def settle(operation: str, answers: Answers) -> dict[str, Message]:
    """All replies, sorted by site. Raises `SitesFailed` if any reports a failure; at once if a site does not answer."""
    good: dict[str, Message] = {}
    failures: dict[str, SiteFailure] = {}
    with closing(answers):
        for site, reply in answers:
            failure = failure_of(reply)
            if failure is None:
                good[site] = reply
                continue
            failures[site] = failure
            if failure.code == NO_ANSWER:
                break
    if failures:
        raise SitesFailed(operation, failures)
    return {site: good[site] for site in sorted(good)}


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def weights_digest(weights: Mapping[str, Array]) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        total.update(canonical_json([name, array.dtype.str, list(array.shape)]).encode())
        total.update(array.data if array.ndim else array.tobytes())
    return total.hexdigest()
