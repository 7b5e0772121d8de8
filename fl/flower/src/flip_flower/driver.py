"""The hub's hand on a net: submits, watches and aborts jobs, spoken to by lines of JSON.

    python -m flip_flower.driver --admin-kit DIR/admin --jobs DIR

One request a line on stdin, one reply a line on stdout, in the same order. Every request has an `op` and may have an
`id`, which the reply repeats:

    {"id": 1, "op": "connected"}           -> {"id": 1, "ok": true, "result": {"sites": ["KCH", "UCLH"]}}
    {"id": 2, "op": "status", "job": "no"} -> {"id": 2, "ok": false, "error": {"code": "job-unknown", "detail": "..."}}

A job is a Flower run. Flower has no way to submit one only once; the driver looks for the attempt among the SuperLink's
runs first, which outlive both of them. While the server is away it answers `net-unreachable`. It ends when stdin does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import httpx
from flip_nnunet.attempt import Attempt
from flwr.app.user_config import UserConfig
from flwr.common.constant import Status as RunState
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.run_pb2 import Run
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flip_flower.job import (
    ATTEMPT_DIGEST,
    ATTEMPT_TOKEN,
    attempt_digest,
    make_app,
    run_configuration,
    write_attempt,
)
from flip_flower.kit import AUTHORITY_CERTIFICATE, Net

log = logging.getLogger(__name__)

_PAGE = 50
_ONLINE = "online"

JobState = Literal["waiting", "running", "completed", "aborted", "failed"]

_STATES: dict[tuple[str, str], JobState] = {
    (RunState.PENDING, ""): "waiting",
    (RunState.STARTING, ""): "waiting",
    (RunState.RUNNING, ""): "running",
    (RunState.FINISHED, SubStatus.COMPLETED): "completed",
    (RunState.FINISHED, SubStatus.STOPPED): "aborted",
    (RunState.FINISHED, SubStatus.FAILED): "failed",
}
_WITH_A_PROCESS = {RunState.STARTING, RunState.RUNNING}
_REFUSALS: dict[int, str] = {
    ApiErrorCode.RUN_ID_NOT_FOUND: "job-unknown",
    ApiErrorCode.RUN_ALREADY_FINISHED: "job-not-running",
}


class Refused(Exception):
    """The driver can't do what it was asked."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


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


Request = Annotated[Connected | Submit | Status | Running | Abort, Field(discriminator="op")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


class Driver:
    """Answers requests over the SuperLink's control port."""

    def __init__(self, admin_kit: Path, jobs: Path) -> None:
        self._admin_kit = admin_kit
        self._net = Net.read(admin_kit)
        self._jobs = jobs

    def answer(self, line: str) -> dict[str, Any]:
        """The reply to a request; what goes wrong is a reply, too."""
        request_id: Any = None
        try:
            raw = json.loads(line)
            request_id = raw.get("id") if isinstance(raw, dict) else None
            result = self._do(_REQUEST.validate_python(raw))
        except Refused as refused:
            return _error(request_id, refused.code, str(refused))
        except (ValidationError, ValueError) as error:
            return _error(request_id, "request-invalid", str(error))
        except httpx.TransportError as error:
            return _error(request_id, "net-unreachable", f"{type(error).__name__}: {error}")
        except httpx.HTTPStatusError as error:
            refusal = FlowerError.from_json(error.response.text)
            code = _REFUSALS.get(refusal.code, "net-refuses-driver") if refusal else "net-refuses-driver"
            return _error(request_id, code, refusal.message if refusal else str(error))
        except Exception as error:  # a bug, or Flower's: the driver must go on for the other requests
            log.exception("request failed")
            return _error(request_id, "internal-error", f"{type(error).__name__}: {error}")
        return {"id": request_id, "ok": True, "result": result}

    def _do(self, request: Request) -> dict[str, Any]:
        match request:
            case Connected():
                nodes = self._server.ListNodes(ListNodesRequest()).nodes_info
                return {"sites": sorted(node.name for node in nodes if node.status == _ONLINE)}
            case Submit():
                return {"job": self._submit(request)}
            case Status(job=job):
                return self._status(job)
            case Running():
                running = (run for run in self._runs() if run.status.status in _WITH_A_PROCESS)
                return {"jobs": sorted(str(run.run_id) for run in running)}
            case Abort(job=job):
                return self._abort(job)

    def _submit(self, request: Submit) -> str:
        attempt = Attempt(request.run_id, request.attempt, request.trusts, request.run_folder, request.job)
        known = self._run_of(attempt)
        if known is not None:
            if known.override_config[ATTEMPT_DIGEST].string != attempt_digest(attempt):
                raise Refused("attempt-differs", f"attempt: {attempt.token} was submitted with another job")
            return str(known.run_id)
        attempt.run_folder.mkdir(parents=True, exist_ok=True)
        configuration: UserConfig = {**run_configuration(attempt, write_attempt(attempt, self._jobs))}
        started = self._server.StartRun(
            StartRunRequest(fab=fab_to_proto(self._app), override_config=user_config_to_proto(configuration))
        )
        if not started.HasField("run_id"):
            raise Refused("job-invalid", f"the SuperLink started no run: {started.note}")
        return str(started.run_id)

    def _run_of(self, attempt: Attempt) -> Run | None:
        for run in self._runs():
            if ATTEMPT_TOKEN in run.override_config and run.override_config[ATTEMPT_TOKEN].string == attempt.token:
                return run
        return None

    def _runs(self) -> Iterator[Run]:
        """All runs that the SuperLink knows, the last one first."""
        seen = 0
        while True:
            page = self._server.ListRuns(ListRunsRequest(limit=_PAGE, skip=seen)).run_dict
            yield from sorted(page.values(), key=lambda run: run.pending_at, reverse=True)
            if len(page) < _PAGE:
                return
            seen += len(page)

    def _status(self, job: str) -> dict[str, Any]:
        [run] = self._server.ListRuns(ListRunsRequest(run_id=_number(job))).run_dict.values()
        told = run.status
        state = _STATES[told.status, told.sub_status]
        return {"job": job, "state": state, "flower_status": ":".join(filter(None, (told.status, told.sub_status)))}

    def _abort(self, job: str) -> dict[str, Any]:
        try:
            self._server.StopRun(StopRunRequest(run_id=_number(job)))
        except httpx.HTTPStatusError as error:
            refusal = FlowerError.from_json(error.response.text)
            if refusal is None or refusal.code != ApiErrorCode.RUN_ALREADY_FINISHED:
                raise
        return self._status(job)

    @cached_property
    def _server(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self._net.control,
            insecure=False,
            root_certificates=(self._admin_kit / AUTHORITY_CERTIFICATE).read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    @cached_property
    def _app(self) -> Fab:
        app = make_app()
        return Fab(app.sha256, app.content, {})


def _number(job: str) -> int:
    if not job.isdecimal():
        raise Refused("job-unknown", f"job: {job!r} is not the number of a Flower run")
    return int(job)


def _error(request_id: Any, code: str, detail: str) -> dict[str, Any]:
    return {"id": request_id, "ok": False, "error": {"code": code, "detail": detail}}


def serve(driver: Driver, requests: TextIO, replies: TextIO) -> None:
    """Answer each line of `requests` until there are no more."""
    for line in requests:
        replies.write(json.dumps(driver.answer(line)) + "\n")
        replies.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flip_flower.driver", description="Drive a net's jobs by JSON lines."
    )
    parser.add_argument("--admin-kit", required=True, type=Path, help="the admin's kit, made by flip_flower.provision")
    parser.add_argument("--jobs", required=True, type=Path, help="a folder for the jobs that are submitted")
    given = parser.parse_args()
    try:
        driver = Driver(given.admin_kit.resolve(), given.jobs.resolve())
    except ValueError as refused:
        parser.error(f"--admin-kit: {refused}")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout carries replies only, whatever a library prints
    serve(driver, sys.stdin, replies)


if __name__ == "__main__":
    main()
