"""Jobs that wait in a table, done one by one."""

import asyncio
from collections.abc import Awaitable, Callable

from flip_chassis.database import UNREACHABLE
from flip_chassis.telemetry import log


async def one_by_one(do_next: Callable[[], Awaitable[bool]], look_s: float) -> None:
    """Do jobs for ever; where `do_next` found none, or Postgres is away, look again after `look_s`."""
    while True:
        try:
            busy = await do_next()
        except UNREACHABLE as error:
            log.warning("Postgres is away; jobs wait", reason=type(error).__name__)
            busy = False
        if not busy:
            await asyncio.sleep(look_s)
