"""The lines of JSON by which the platform drives the jobs of a net: the same for every framework.

One request a line, one reply a line, in the same order. Every request has an `op` and may have an `id`, which the reply
repeats:

    {"id": 1, "op": "connected"}           -> {"id": 1, "ok": true, "result": {"sites": ["KCH", "UCLH"]}}
    {"id": 2, "op": "status", "job": "no"} -> {"id": 2, "ok": false, "error": {"code": "job-unknown", "detail": "..."}}
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from flip_nnunet.attempt import Attempt

log = logging.getLogger(__name__)

JobState = Literal["waiting", "running", "completed", "aborted", "failed", "lost"]
"""`lost`: the server died while the job ran, and forgot it."""

Result = dict[str, Any]


class Refused(Exception):
    """The driver can't do what it was asked; `code` says why, in one word."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


class Asked(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: int | str | None = None


class Connected(Asked):
    """Which sites are connected."""

    op: Literal["connected"]


class Submit(Asked):
    """Submit one attempt of a run. The same attempt again gives the same job."""

    op: Literal["submit"]
    run_id: str
    attempt: int
    trusts: tuple[str, ...]
    run_folder: Path
    job: dict[str, Any]

    def asked(self) -> Attempt:
        """The attempt. Raises ValueError that names the field."""
        return Attempt(self.run_id, self.attempt, self.trusts, self.run_folder, self.job)


class Status(Asked):
    """How a job stands."""

    op: Literal["status"]
    job: str


class Running(Asked):
    """The jobs that have a process at the server."""

    op: Literal["running"]


class Abort(Asked):
    """End a job at the server and at every site. A job that is over stays as it is."""

    op: Literal["abort"]
    job: str


Request = Connected | Submit | Status | Running | Abort
"""What every driver can be asked; a driver may know more."""
OP = Field(discriminator="op")
"""A request is read as the type that its `op` names."""
REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, OP])

R = TypeVar("R", bound=Asked)
Do = Callable[[R], Result]
"""Does what is asked, or raises: `Refused`, ValueError for what is asked wrongly, or an error of the framework's."""
Explain = Callable[[Exception], Refused | None]
"""What an error of the framework's means; None for one that should not have come."""


def answer(line: str, known: TypeAdapter[R], do: Do[R], explain: Explain) -> Result:
    """The reply to a request that is one of the `known`; what goes wrong is a reply, too."""
    request_id: Any = None
    try:
        raw = json.loads(line)
        request_id = raw.get("id") if isinstance(raw, dict) else None
        result = do(known.validate_python(raw))
    except Exception as error:  # whatever it is, the driver must go on for the other requests
        refused = _refusal(error, explain)
        return {"id": request_id, "ok": False, "error": {"code": refused.code, "detail": str(refused)}}
    return {"id": request_id, "ok": True, "result": result}


def _refusal(error: Exception, explain: Explain) -> Refused:
    if isinstance(error, Refused):
        return error
    if explained := explain(error):
        return explained
    if isinstance(error, ValueError):  # pydantic's, too
        return Refused("request-invalid", str(error))
    log.error("request failed", exc_info=error)
    return Refused("internal-error", f"{type(error).__name__}: {error}")


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of a driver: `--admin-kit DIR/admin --jobs DIR`, both absolute."""
    parser.add_argument("--admin-kit", required=True, type=Path, help="the admin's kit, as `provision` made it")
    parser.add_argument("--jobs", required=True, type=Path, help="a folder for the jobs that are submitted")
    given = parser.parse_args()
    return argparse.Namespace(admin_kit=given.admin_kit.resolve(), jobs=given.jobs.resolve())


def serve(known: TypeAdapter[R], do: Do[R], explain: Explain) -> None:
    """Answer each line of stdin on stdout until there are no more; all else that is printed goes to stderr."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout carries replies only, whatever a library prints
        for line in sys.stdin:
            replies.write(json.dumps(answer(line, known, do, explain)) + "\n")
            replies.flush()
