"""The hub's hand on a net: submits, watches and aborts jobs, spoken to by lines of JSON.

    python -m flip_flare.driver --admin-kit DIR/admin --jobs DIR

One request a line on stdin, one reply a line on stdout, in the same order. Every request has an `op` and may have an
`id`, which the reply repeats:

    {"id": 1, "op": "connected"}           -> {"id": 1, "ok": true, "result": {"sites": ["KCH", "UCLH"]}}
    {"id": 2, "op": "status", "job": "no"} -> {"id": 2, "ok": false, "error": {"code": "job-unknown", "detail": "..."}}

The driver connects when it is first asked and again after the server was away; meanwhile it answers `net-unreachable`.
It ends when stdin does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

from flip_nnunet.attempt import Attempt
from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.fuel.flare_api import api_spec as flare
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flip_flare.job import write_job
from flip_flare.provision import ADMIN

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_LOG_TAIL_LINES = 400

JobState = Literal["waiting", "running", "completed", "aborted", "failed", "lost"]
"""`lost`: the server died while the job ran, and forgot it; FLARE goes on to call such a job RUNNING for ever."""

_STATES: dict[str, JobState] = {
    RunStatus.SUBMITTED: "waiting",
    RunStatus.APPROVED: "waiting",
    RunStatus.DISPATCHED: "waiting",
    RunStatus.RUNNING: "running",
    RunStatus.FINISHED_COMPLETED: "completed",
    RunStatus.FINISHED_ABORTED: "aborted",
}
_UNDER_WAY = {RunStatus.DISPATCHED.value, RunStatus.RUNNING.value}

_CODES: dict[type[Exception], str] = {
    flare.NoConnection: "net-unreachable",
    flare.SessionClosed: "net-unreachable",
    flare.NoReply: "net-unreachable",
    flare.AuthenticationError: "net-refuses-driver",
    flare.AuthorizationError: "not-authorized",
    flare.InvalidJobDefinition: "job-invalid",
    flare.SubmitTokenConflict: "attempt-differs",
    flare.SubmitTokenJobDeleted: "job-deleted",
    flare.JobNotFound: "job-unknown",
    flare.JobNotRunning: "job-not-running",
    flare.NoClientsAvailable: "no-sites",
    ValidationError: "request-invalid",
    ValueError: "request-invalid",
}
_CONNECTION_LOST = (flare.NoConnection, flare.SessionClosed, flare.NoReply)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    id: int | str | None = None


class Connected(_Request):
    """Which sites are connected."""

    op: Literal["connected"]


class Submit(_Request):
    """Submit one attempt of a run. The same attempt again gives the same job."""

    op: Literal["submit"]
    run_id: str
    attempt: int
    trusts: tuple[str, ...]
    run_folder: Path
    job: dict[str, Any]


class Status(_Request):
    """How a job stands."""

    op: Literal["status"]
    job: str


class Running(_Request):
    """The jobs that have a process at the server."""

    op: Literal["running"]


class Abort(_Request):
    """End a job at the server and at every site. A job that is over stays as it is."""

    op: Literal["abort"]
    job: str


class Logs(_Request):
    """The last lines of the server's log of a job."""

    op: Literal["logs"]
    job: str


Request = Annotated[Connected | Submit | Status | Running | Abort | Logs, Field(discriminator="op")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_Result = TypeVar("_Result")


class Driver:
    """Answers requests over one admin session, which it makes when it needs it."""

    def __init__(self, admin_kit: Path, jobs: Path) -> None:
        self._admin_kit = admin_kit
        self._jobs = jobs
        self._session: Session | None = None

    def answer(self, line: str) -> dict[str, Any]:
        """The reply to a request; what goes wrong is a reply, too."""
        request_id: Any = None
        try:
            raw = json.loads(line)
            request_id = raw.get("id") if isinstance(raw, dict) else None
            result = self._do(_REQUEST.validate_python(raw))
        except tuple(_CODES) as error:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            return {"id": request_id, "ok": False, "error": {"code": code, "detail": str(error)}}
        except Exception as error:  # a bug, or FLARE's: the driver must go on for the other requests
            log.exception("request failed")
            detail = f"{type(error).__name__}: {error}"
            return {"id": request_id, "ok": False, "error": {"code": "internal-error", "detail": detail}}
        return {"id": request_id, "ok": True, "result": result}

    def _do(self, request: Request) -> dict[str, Any]:
        match request:
            case Connected():
                return {"sites": sorted(client.name for client in self._ask(Session.get_connected_client_list))}
            case Submit():
                return {"job": self._submit(request)}
            case Status(job=job):
                return self._status(job)
            case Running():
                return {"jobs": sorted(job.job_id for job in self._ask(Session.get_system_info).job_info)}
            case Abort(job=job):
                return self._abort(job)
            case Logs(job=job):
                logs = self._ask(lambda session: session.get_job_logs(job, "server", tail_lines=_LOG_TAIL_LINES))
                return {"lines": logs["logs"].get("server", "").splitlines()}

    def _submit(self, request: Submit) -> str:
        attempt = Attempt(request.run_id, request.attempt, request.trusts, request.run_folder, request.job)
        attempt.run_folder.mkdir(parents=True, exist_ok=True)
        folder = write_job(attempt, self._jobs)
        return self._ask(lambda session: session.submit_job(str(folder), submit_token=attempt.token))

    def _status(self, job: str) -> dict[str, Any]:
        meta: dict[str, Any] = self._ask(lambda session: session.get_job_meta(job))
        status = meta[JobMetaKey.STATUS.value]
        state = _STATES.get(status, "failed")
        if status in _UNDER_WAY and self._is_lost(job, meta):
            state = "lost"
        return {"job": job, "state": state, "flare_status": status}

    def _is_lost(self, job: str, meta: dict[str, Any]) -> bool:
        """Whether the job was under way in an earlier life of the server and is not in this one."""
        system = self._ask(Session.get_system_info)
        if job in {known.job_id for known in system.job_info}:
            return False
        started: str = meta.get(JobMetaKey.START_TIME.value) or meta[JobMetaKey.SUBMIT_TIME_ISO.value]
        return datetime.fromisoformat(started).timestamp() < system.server_info.start_time

    def _abort(self, job: str) -> dict[str, Any]:
        try:
            self._ask(lambda session: session.abort_job(job))
        except (flare.JobNotRunning, flare.InternalError):
            status = self._status(job)
            if status["state"] in {"waiting", "running"}:
                raise
            return status
        return self._status(job)

    def _ask(self, command: Callable[[Session], _Result]) -> _Result:
        """Run an admin command (each is idempotent), once more over a new session if the old one turns out dead."""
        kept = self._session
        try:
            return command(self._connect())
        except _CONNECTION_LOST:
            self._disconnect()
            if kept is None:
                raise
        return command(self._connect())

    def _connect(self) -> Session:
        if self._session is None:
            self._session = new_secure_session(ADMIN, str(self._admin_kit), timeout=_CONNECT_TIMEOUT_S)
        return self._session

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.close()
        except Exception:  # there may be nobody to say goodbye to
            log.info("the old admin session did not close", exc_info=True)


def serve(driver: Driver, requests: TextIO, replies: TextIO) -> None:
    """Answer each line of `requests` until there are no more."""
    for line in requests:
        replies.write(json.dumps(driver.answer(line)) + "\n")
        replies.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flip_flare.driver", description="Drive a net's jobs by JSON lines."
    )
    parser.add_argument("--admin-kit", required=True, type=Path, help="the admin's kit, made by flip_flare.provision")
    parser.add_argument("--jobs", required=True, type=Path, help="a folder for the jobs that are submitted")
    given = parser.parse_args()
    admin_kit = given.admin_kit.resolve()
    if not (admin_kit / "startup" / "fed_admin.json").is_file():
        parser.error(f"--admin-kit: {admin_kit} is not an admin's kit")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # FLARE prints; stdout carries replies only
    serve(Driver(admin_kit, given.jobs.resolve()), sys.stdin, replies)
    replies.flush()
    os._exit(0)  # FLARE's session keeps threads that would never end


if __name__ == "__main__":
    main()
