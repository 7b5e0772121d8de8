"""The processes that train a run at this Trust: the framework ends them with its job; here we see to it."""

import asyncio
import os
import signal
import time
from pathlib import Path

from flip_chassis.telemetry import log
from flip_contracts.base import RunId

_GRACE_S = 8.0
"""How long the framework may take to end them by itself."""
_FORCE_S = 5.0
_LOOK_S = 0.2


async def end(script: str, run_id: RunId) -> None:
    """Return when no trainer of the run, a process of the module `script`, is left.

    Raises TimeoutError where one can't be killed.
    """
    began = time.monotonic()
    while left := await asyncio.to_thread(trainers_of, script, run_id):
        waited_s = time.monotonic() - began
        if waited_s > _GRACE_S + _FORCE_S:
            raise TimeoutError(f"{len(left)} trainers do not end")
        if waited_s > _GRACE_S:
            log.warning("trainers are killed", run_id=str(run_id), processes=left)
            for pid in left:
                _kill(pid)
        await asyncio.sleep(_LOOK_S)


def trainers_of(script: str, run_id: RunId, processes: Path = Path("/proc")) -> list[int]:
    """The trainers of a run: processes of the module `script` that were started with the run's id."""
    return started_with(script, str(run_id), processes=processes)


def started_with(*arguments: str, processes: Path = Path("/proc")) -> list[int]:
    """The processes among whose arguments all of these are."""
    wanted = {argument.encode() for argument in arguments}
    return [int(entry.name) for entry in processes.iterdir() if entry.name.isdigit() and _was_told(entry, wanted)]


def _was_told(process: Path, wanted: set[bytes]) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
    return wanted.issubset(arguments)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
