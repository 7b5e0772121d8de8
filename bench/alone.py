"""Work in a process of its own, so that its peak of memory is its own."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

Work = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Measured:
    """How long it took, and the most memory that the process ever held."""

    seconds: float
    peak_mib: float


async def alone(work: Work, *arguments: object) -> Measured:
    """Run `work`, a function of a module, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _measure, work, arguments)


def _measure(work: Work, arguments: tuple[object, ...]) -> Measured:
    began = time.perf_counter()
    work(*arguments)
    return Measured(time.perf_counter() - began, _peak_mib())


def _peak_mib() -> float:
    # Not getrusage: its figure begins with what the parent held when it made this process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
