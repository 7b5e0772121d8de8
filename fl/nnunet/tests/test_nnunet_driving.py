"""A request is answered with a result or a code, whatever it is and whatever goes wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flip_nnunet.driving import REQUESTS, Connected, Refused, Request, Result, Submit, answer
from flip_nnunet.testing.driver_suite import MALFORMED

SUBMIT = {"op": "submit", "run_id": "r", "attempt": 1, "trusts": ["KCH"], "run_folder": "/r", "job": {"run_id": "r"}}


class NetAway(Exception):
    """An error of the framework's."""


def explain(error: Exception) -> Refused | None:
    return Refused("net-unreachable", str(error)) if isinstance(error, NetAway) else None


def do(request: Request) -> Result:
    match request:
        case Connected():
            return {"sites": ["KCH"]}
        case Submit():
            return {"job": request.asked().token}
        case _:
            raise AssertionError(request)


def failing(error: Exception) -> Any:
    def fail(_: Request) -> Result:
        raise error

    return fail


def test_a_reply_repeats_the_id_of_its_request():
    reply = answer('{"id": "q7", "op": "connected"}', REQUESTS, do, explain)
    assert reply == {"id": "q7", "ok": True, "result": {"sites": ["KCH"]}}


def test_an_attempt_is_submitted_by_its_token():
    assert answer(json.dumps(SUBMIT), REQUESTS, do, explain)["result"] == {"job": "r.1"}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        *MALFORMED,
        (json.dumps(SUBMIT | {"job": {}}), "run_id"),
        (json.dumps(SUBMIT | {"attempt": 0}), "attempt"),
    ],
)
def test_a_malformed_request_is_refused_with_what_is_wrong(line: str, named: str):
    reply = answer(line, REQUESTS, do, explain)
    assert reply["ok"] is False
    assert reply["error"]["code"] == "request-invalid"
    assert named in reply["error"]["detail"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NetAway("no route"), "net-unreachable"),
        (Refused("job-unknown", "no such job"), "job-unknown"),
        (KeyError("a bug"), "internal-error"),
    ],
)
def test_what_goes_wrong_is_a_reply_with_a_code(error: Exception, code: str):
    reply = answer('{"id": 3, "op": "connected"}', REQUESTS, failing(error), explain)
    assert (reply["id"], reply["ok"], reply["error"]["code"]) == (3, False, code)
