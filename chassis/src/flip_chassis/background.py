"""Every task has an owner: it is awaited, and when it dies the process does, loudly."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from flip_chassis.telemetry import log


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None], name: str) -> AsyncGenerator[None]:
    """Run `work`, which has no end of its own, while the block lasts.

    Where it dies the process is asked to stop, and the block raises what killed it.
    """

    def watch(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("a background task has ended", task=name, exc_info=task.exception())
            os.kill(os.getpid(), signal.SIGTERM)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(watch)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        raise RuntimeError(f"the task {name} has ended") from task.exception()
