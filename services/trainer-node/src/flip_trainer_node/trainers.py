"""The processes of a run at this Trust: the framework ends them with its job; here we see to it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flip_chassis.telemetry import log
from flip_contracts.base import RunId

_GRACE_S = 8.0
"""How long the framework may take to end them by itself."""
_FORCE_S = 5.0
_LOOK_S = 0.2
_WARDEN = "flip_nnunet.sandbox.warden"
"""It ends with its box, and a box with its warden. NVFLARE's own process of a job is in one, and no trainer yet."""


async def end(script: str, run_id: RunId) -> None:
    """Return when no process of the run is left: no trainer (the module `script`) and no box.

    Raises TimeoutError where one can't be killed.
    """
    began = time.monotonic()
    while left := await asyncio.to_thread(processes_of, script, run_id):
        waited_s = time.monotonic() - began
        if waited_s > _GRACE_S + _FORCE_S:
            raise TimeoutError(f"{len(left)} processes of the run do not end")
        if waited_s > _GRACE_S:
            log.warning("processes of a run are killed", run_id=str(run_id), processes=left)
            for pid in left:
                _kill(pid)
        await asyncio.sleep(_LOOK_S)


def processes_of(script: str, run_id: RunId) -> list[int]:
    """The trainers of a run, and the wardens of its boxes, whose orders name the run's folder."""
    return [
        pid
        for pid, arguments in _running()
        if {script, str(run_id)}.issubset(arguments) or (_WARDEN in arguments and str(run_id) in " ".join(arguments))
    ]


def started_with(*wanted: str) -> list[int]:
    """The processes among whose arguments all of these are."""
    return [pid for pid, arguments in _running() if set(wanted).issubset(arguments)]


def _running() -> Iterator[tuple[int, Sequence[str]]]:
    """The processes of this machine, and what each was started with."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                told = (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            yield int(process.name), os.fsdecode(told).split("\0")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
