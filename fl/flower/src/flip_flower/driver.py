"""The hub's hand on a net: submits, watches and aborts jobs, spoken to by lines of JSON.

    python -m flip_flower.driver --admin-kit DIR/admin --jobs DIR

How a request and its reply look: `flip_nnunet.driving`.

A job is a Flower run. Flower has no way to submit one only once; the driver looks for the attempt among the SuperLink's
runs first, which outlive both of them. While the server is away it answers `net-unreachable`. It ends when stdin does.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from flip_nnunet.attempt import Attempt
from flip_nnunet.driving import (
    REQUESTS,
    Abort,
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
from flwr.app.user_config import UserConfig
from flwr.common.constant import Status as RunState
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.run_pb2 import Run
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from flip_flower.job import (
    ATTEMPT_DIGEST,
    ATTEMPT_TOKEN,
    attempt_digest,
    make_app,
    run_configuration,
    write_attempt,
)
from flip_flower.kit import AUTHORITY_CERTIFICATE, Net

_PAGE = 50

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


class Driver:
    """Answers requests over the SuperLink's control port."""

    def __init__(self, admin_kit: Path, jobs: Path) -> None:
        self._admin_kit = admin_kit
        self._net = Net.read(admin_kit)
        self._jobs = jobs

    def do(self, request: Request) -> Result:
        """Do what is asked. Raises `Refused`, ValueError, or what `explain` knows."""
        match request:
            case Connected():
                nodes = self._server.ListNodes(ListNodesRequest()).nodes_info
                return {"sites": sorted(node.name for node in nodes if node.status == NodeStatus.ONLINE)}
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
        attempt = request.asked()
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


def explain(error: Exception) -> Refused | None:
    """What an error of the SuperLink's means, or of the way to it."""
    match error:
        case httpx.TransportError():
            return Refused("net-unreachable", f"{type(error).__name__}: {error}")
        case httpx.HTTPStatusError():
            refusal = FlowerError.from_json(error.response.text)
            if refusal is None:
                return Refused("net-refuses-driver", str(error))
            return Refused(_REFUSALS.get(refusal.code, "net-refuses-driver"), refusal.message)
        case _:
            return None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flip_flower.driver", description="Drive a net's jobs by JSON lines."
    )
    given = arguments(parser)
    try:
        driver = Driver(given.admin_kit, given.jobs)
    except ValueError as refused:
        parser.error(f"--admin-kit: {refused}")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(REQUESTS, driver.do, explain)


if __name__ == "__main__":
    main()
