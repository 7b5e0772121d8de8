"""Work on pixels in processes of its own: it blocks no loop, and data that crash a library crash only their study.

A process needs some seconds and 150 MiB to start (highdicom), so it stays for a while after its last work, then goes.
"""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

from flip_imaging.dicomweb import silence_libraries
from flip_imaging.ports import TimedOut, WorkerLost

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


IDLE_S = 30.0


class Workshop:
    """At most `workers` processes, made when there is work; `rest` gives their memory back."""

    def __init__(self, workers: int, limit_s: float) -> None:
        self._workers = workers
        self._limit_s = limit_s
        self._pool: ProcessPoolExecutor | None = None
        self._busy = 0
        self._idle_since = 0.0

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run `function` in a process. Raises what it raises, WorkerLost if its process died, TimedOut."""
        pool = self._open()
        self._busy += 1
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
        except BrokenProcessPool:
            self._close(pool)
            raise WorkerLost("the process that worked on the study died") from None
        except TimeoutError:
            self._close(pool)
            raise TimedOut("the work on the study took too long") from None
        finally:
            self._busy -= 1
            self._idle_since = time.monotonic()

    def rest(self) -> None:
        """End the processes if they had nothing to do for a while; the next work starts new ones."""
        if self._pool is not None and not self._busy and time.monotonic() - self._idle_since > IDLE_S:
            self._close(self._pool)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._close(self._pool)

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_begin_process)
        return self._pool

    def _close(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)


def _begin_process() -> None:
    silence_libraries()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process doesn't notice by itself that the service was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def workshop(workers: int, limit_s: float) -> Generator[Workshop]:
    """A workshop that leaves no process behind."""
    shop = Workshop(workers, limit_s)
    try:
        yield shop
    finally:
        shop.close()
