"""Processes of the framework's environment that are kept running, and end with everything that they started."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flip_chassis.telemetry import log

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STEADY_S = 120.0
"""A process that lived this long begins again with the shortest pause."""
_GRACE_S = 12.0
"""How long a keeper (`flip_nnunet.keeper`) may take to end what it keeps."""
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_")


def environment(**more: str) -> Mapping[str, str]:
    """What a process of the framework's environment is told: of our own environment only what holds no secret."""
    passed = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    return {**passed, "PYTHONUNBUFFERED": "1", **more}


@dataclass(frozen=True, slots=True)
class Kept:
    """A process that is started again, with growing pauses, whenever it ends. Its output goes to `logs`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    logs: Path
    started: Callable[[], Awaitable[None]] | None = None
    """Called after each start."""

    async def keep(self) -> None:
        """Run for ever; when cancelled, end the process first."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            status = await self._run_once()
            lived_s = time.monotonic() - began
            pause_s = _FIRST_PAUSE_S if lived_s > _STEADY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
            log.warning(
                "a process has ended", process=self.name, status=status, lived_s=round(lived_s), pause_s=pause_s
            )
            await asyncio.sleep(pause_s)

    async def _run_once(self) -> int:
        self.logs.parent.mkdir(parents=True, exist_ok=True)
        with self.logs.open("ab") as logs:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=logs,
                stderr=logs,
                start_new_session=True,
            )
        try:
            if self.started is not None:
                await self.started()
            return await process.wait()
        finally:
            await asyncio.shield(end(process))


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process and its group: asked first, then by force."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
