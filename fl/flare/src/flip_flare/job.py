"""The FLARE job of one attempt of a run: configuration only, no code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flip_nnunet.attempt import Attempt
from flip_nnunet.files import replace_json

_SERVER_SITE = "server"
_APP = "app"
_SHORTEST_INTERVAL_S = 0.05
_REQUESTS_A_SECOND = 40
"""How often all clients of a job together ask for their next tasks. Each rests for its interval after every task, too,
while the hub takes the mean of a round within some hundredths of a second: FLARE's 2 s double a job of short rounds."""
_DEAD_CLIENT_GRACE_S = 20.0
"""How long a client that was reported dead may take to give a sign before the round does without it."""
_JOB_HEARTBEAT_S = 5.0
"""How often a client's job process gives a sign of life to the server's."""

_FIRST_SIGN_S = 180.0
"""How long a Trust's part of a job tries to reach the hub's; FLARE's own 60 s are too few on a busy machine."""


def write_job(attempt: Attempt, folder: Path) -> Path:
    """Write the attempt's job folder under `folder`, anew; returns it."""
    target = folder / f"{attempt.run_id}-{attempt.number}"
    shutil.rmtree(target, ignore_errors=True)
    config = target / _APP / "config"
    config.mkdir(parents=True)
    replace_json(target / "meta.json", _meta(attempt))
    replace_json(config / "config_fed_server.json", _server(attempt))
    replace_json(config / "config_fed_client.json", _client(attempt))
    return target


def _meta(attempt: Attempt) -> dict[str, Any]:
    return {
        "name": attempt.token,
        "min_clients": attempt.job.get("minimum_sites") or len(attempt.trusts),
        "resource_spec": {},
        "deploy_map": {_APP: [_SERVER_SITE, *attempt.trusts]},
    }


def _server(attempt: Attempt) -> dict[str, Any]:
    arguments = {
        "run_folder": str(attempt.run_folder),
        "attempt": attempt.number,
        "trusts": list(attempt.trusts),
        "job": attempt.job,
    }
    return {
        "format_version": 2,
        "server": {"task_request_interval": max(_SHORTEST_INTERVAL_S, len(attempt.trusts) / _REQUESTS_A_SECOND)},
        "dead_client_grace_period": _DEAD_CLIENT_GRACE_S,
        "workflows": [{"id": "nnunet", "path": "flip_flare.controller.NnunetController", "args": arguments}],
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [],
    }


def _client(attempt: Attempt) -> dict[str, Any]:
    executor = {"path": "flip_flare.executor.NnunetExecutor", "args": {"run_id": attempt.run_id}}
    return {
        "format_version": 2,
        "job_heartbeat_interval": _JOB_HEARTBEAT_S,
        "max_runner_sync_timeout": _FIRST_SIGN_S,
        "executors": [{"tasks": ["train"], "executor": executor}],
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [],
    }
