"""The processes that train a run at this Trust: FLARE ends them with its job; here we see to it."""

import asyncio
import os
import signal
import time
from pathlib import Path

from flip_chassis.telemetry import log
from flip_contracts.base import RunId

_SCRIPT = b"flip_flare.trainer_script"
_GRACE_S = 8.0
"""How long FLARE may take to end them by itself."""
_FORCE_S = 5.0
_LOOK_S = 0.2


async def end(run_id: RunId) -> None:
    """Return when no trainer of the run is left. Raises TimeoutError where one can't be killed."""
    began = time.monotonic()
    while left := await asyncio.to_thread(trainers_of, run_id):
        waited_s = time.monotonic() - began
        if waited_s > _GRACE_S + _FORCE_S:
            raise TimeoutError(f"{len(left)} trainers do not end")
        if waited_s > _GRACE_S:
            log.warning("trainers are killed", run_id=str(run_id), processes=left)
            for pid in left:
                _kill(pid)
        await asyncio.sleep(_LOOK_S)


def trainers_of(run_id: RunId, processes: Path = Path("/proc")) -> list[int]:
    """The trainers of a run: processes of the script that FLARE starts with the run's id."""
    return [int(entry.name) for entry in processes.iterdir() if entry.name.isdigit() and _trains(entry, run_id)]


def _trains(process: Path, run_id: RunId) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
    return _SCRIPT in arguments and str(run_id).encode() in arguments


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
