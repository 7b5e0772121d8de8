"""Keeps the parts of one stack running: starts them by readiness, restarts them, and sweeps whole process trees.

It runs as process 1 of its own pid namespace (see `flip_local.control.launch`), so the kernel kills every process of
the stack when it ends, however it ends, and orphans of its parts become its children.

One line of JSON a request on the control socket, one or more lines of JSON as the answer, the last with `"ok"`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flip_local import stack
from flip_local.children import Children
from flip_local.keeper import Keeper
from flip_local.layout import Layout
from flip_local.part import Part, with_dependencies
from flip_local.processes import pss_mib


class Supervisor:
    """All keepers of one stack, and the control socket."""

    def __init__(self, layout: Layout, parts: Mapping[str, Part]) -> None:
        self._layout = layout
        self._parts = parts
        self._children = Children()
        self._keepers = {name: Keeper(part, self._children, layout.log(name)) for name, part in parts.items()}
        self._finish = asyncio.Event()

    async def run(self) -> None:
        """Serve the control socket until told to finish, then stop every part, dependants first."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._children.reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish.set)
        server = await asyncio.start_unix_server(self._serve, sock=listen(self._layout.control))
        async with server:
            await self._finish.wait()
            await self._stop_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def answer(**fields: Any) -> None:
            writer.write(json.dumps(fields).encode() + b"\n")
            await writer.drain()

        try:
            if line := await reader.readline():
                await self._obey(json.loads(line), answer)
        except (ProcessLookupError, KeyError) as problem:
            await answer(ok=False, problem=str(problem.args[0]))
        except ConnectionError:
            return  # the asker has gone; what it asked for goes on
        finally:
            writer.close()

    async def _obey(self, request: dict[str, Any], answer: Callable[..., Awaitable[None]]) -> None:
        names: list[str] = request.get("names", [])
        for name in names:
            if name not in self._keepers:
                raise KeyError(f"no part is called {name!r}: {', '.join(self._keepers)}")
        match request["do"]:
            case "up":
                await self._up(names, answer)
                return
            case "stop":
                await asyncio.gather(*(self._keepers[name].stop() for name in names))
            case "kill":
                for name in names:
                    await self._keepers[name].signal(signal.Signals[request["signal"]])
            case "status":
                await answer(ok=True, parts=[self._status(keeper) for keeper in self._keepers.values()])
                return
            case "down":
                self._finish.set()
            case other:
                raise KeyError(f"unknown request {other!r}")
        await answer(ok=True)

    async def _up(self, names: list[str], answer: Callable[..., Awaitable[None]]) -> None:
        wanted = [self._keepers[part.name] for part in with_dependencies(self._parts, names)]
        for part, port in _busy_ports(wanted):
            await answer(ok=False, part=part, busy_port=port)
            return
        for keeper in wanted:
            keeper.start([self._keepers[name] for name in keeper.part.after])
        failed = await self._first_failure(wanted, answer)
        if failed is None:
            await answer(ok=True)
        else:
            await answer(ok=False, part=failed.part.name, problem=failed.reason or "was stopped")

    async def _first_failure(self, wanted: list[Keeper], answer: Callable[..., Awaitable[None]]) -> Keeper | None:
        """Wait until every wanted part is up, telling of each change, or until one of them has failed."""

        async def failed(keeper: Keeper) -> Keeper | None:
            async def tell() -> None:
                await answer(part=keeper.part.name, state=keeper.state)

            return None if await keeper.until_up(tell) else keeper

        waiting = {asyncio.create_task(failed(keeper)) for keeper in wanted}
        try:
            for ended in asyncio.as_completed(waiting):
                if (keeper := await ended) is not None:
                    return keeper
            return None
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def _status(self, keeper: Keeper) -> dict[str, Any]:
        return {
            "name": keeper.part.name,
            "group": keeper.part.group,
            "state": keeper.state,
            "pid": keeper.pid,
            "restarts": keeper.restarts,
            "for_s": time.monotonic() - keeper.since,
            "pss_mib": sum(pss_mib(pid) for pid in keeper.members()),
        }

    async def _stop_all(self) -> None:
        """Stop every part, each after all that depend on it."""
        stopping: dict[str, asyncio.Task[None]] = {}

        async def stop(keeper: Keeper) -> None:
            name = keeper.part.name
            await asyncio.gather(*(stopping[other] for other, part in self._parts.items() if name in part.after))
            await keeper.stop()

        for name, keeper in self._keepers.items():
            stopping[name] = asyncio.create_task(stop(keeper))
        await asyncio.gather(*stopping.values())


def _busy_ports(keepers: list[Keeper]) -> Iterator[tuple[str, int]]:
    """The parts to start whose port someone else has."""
    for keeper in keepers:
        for port in keeper.part.ports if not keeper.is_wanted else ():
            if not _is_free(port):
                yield keeper.part.name, port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port with connections that have just been closed can be had.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listen(path: Path) -> socket.socket:
    """A listening unix socket at `path`, which may be longer than a socket's address can be."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    path.chmod(0o600)
    listener.listen()
    return listener


def main() -> None:
    """Run the stack that the environment describes until it is told to stop."""
    os.umask(0o077)
    layout = Layout.from_environment()
    lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another supervisor keeps this stack")
    asyncio.run(Supervisor(layout, stack.parts(layout)).run())


if __name__ == "__main__":
    main()
