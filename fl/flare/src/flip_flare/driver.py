"""The hub's hand on a net: submits, watches and aborts jobs, spoken to by lines of JSON.

    python -m flip_flare.driver --admin-kit DIR/admin --jobs DIR

How a request and its reply look: `flip_nnunet.driving`.

The driver connects when it is first asked and again after the server was away; meanwhile it answers `net-unreachable`.
It ends when stdin does.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from flip_nnunet.driving import (
    OP,
    Abort,
    Asked,
    Connected,
    JobState,
    Refused,
    Request,
    Result,
    Running,
    Status,
    Submit,
    arguments,
    serve,
)
from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.fuel.flare_api import api_spec as flare
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from pydantic import TypeAdapter

from flip_flare.job import write_job
from flip_flare.provision import ADMIN

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_LOG_TAIL_LINES = 400

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
}
_CONNECTION_LOST = (flare.NoConnection, flare.SessionClosed, flare.NoReply)

_Answer = TypeVar("_Answer")


class Logs(Asked):
    """The last lines of the server's log of a job."""

    op: Literal["logs"]
    job: str


FlareRequest = Request | Logs
_REQUESTS: TypeAdapter[FlareRequest] = TypeAdapter(Annotated[FlareRequest, OP])


class Driver:
    """Answers requests over one admin session, which it makes when it needs it."""

    def __init__(self, admin_kit: Path, jobs: Path) -> None:
        self._admin_kit = admin_kit
        self._jobs = jobs
        self._session: Session | None = None

    def do(self, request: FlareRequest) -> Result:
        """Do what is asked. Raises `Refused`, ValueError, or what `explain` knows."""
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
        attempt = request.asked()
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
        """Whether the job was under way in an earlier life of the server and is not in this one.

        FLARE goes on to call such a job RUNNING for ever.
        """
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

    def _ask(self, command: Callable[[Session], _Answer]) -> _Answer:
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


def explain(error: Exception) -> Refused | None:
    """What an error of FLARE's means."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    return None if code is None else Refused(code, str(error))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flip_flare.driver", description="Drive a net's jobs by JSON lines."
    )
    given = arguments(parser)
    if not (given.admin_kit / "startup" / "fed_admin.json").is_file():
        parser.error(f"--admin-kit: {given.admin_kit} is not an admin's kit")
    serve(_REQUESTS, Driver(given.admin_kit, given.jobs).do, explain)
    os._exit(0)  # FLARE's session keeps threads that would never end


if __name__ == "__main__":
    main()
