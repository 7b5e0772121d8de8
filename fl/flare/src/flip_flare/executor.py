"""What a job may start at a Trust: the package's own trainer script, and nothing else."""

from __future__ import annotations

import sys

from flip_nnunet.attempt import checked_run_id
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.client.config import ExchangeFormat

_HEARTBEAT_TIMEOUT_S = 120.0
"""Reading and resampling images can hold the interpreter for long; a dead process is noticed at once all the same."""
_STOP_GRACE_S = 2.0


class NnunetExecutor(ClientAPIExecutor):
    """Runs the trainer of one run in a process of its own, which lives as long as the job.

    FLARE's executor takes any command from the job, so a hub could run anything at a Trust. This one takes a run's id;
    a Trust lists it, not FLARE's, among the classes that a job may use.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            execution_mode=ExecutionMode.EXTERNAL_PROCESS,
            command=[sys.executable, "-u", "-m", "flip_flare.trainer_script", "--run", checked_run_id(run_id)],
            params_exchange_format=ExchangeFormat.NUMPY,
            server_expected_format=ExchangeFormat.NUMPY,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT_S,
            stop_grace_period=_STOP_GRACE_S,
        )
