"""Keeps one part in the state that is wanted of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from flip_local.children import Children
from flip_local.part import Part
from flip_local.probes import answers
from flip_local.processes import descendants, processes, variable

State = Literal["stopped", "waiting", "starting", "ready", "done", "backing off", "failed"]

_OWNER = "FLIP_PART"
"""The environment variable by which a process is known to come from a part, in whatever session it is."""

_PROBE_EVERY_S = 0.1
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_HEALTHY_AFTER_S = 30.0
_START_ATTEMPTS = 3
_SWEEP_EVERY_S = 0.02
_CANNOT_START = 127


class Keeper:
    """One part: started after others, watched until it is ready, started again when it ends, swept when stopped."""

    def __init__(self, part: Part, children: Children, log: Path) -> None:
        self.part = part
        self.state: State = "stopped"
        self.pid: int | None = None
        self.restarts = 0
        self.failures = 0
        self.reason = ""
        self.since = time.monotonic()
        self.changed = asyncio.Condition()
        self._children = children
        self._log = log
        self._changes = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        return self.state in ("ready", "done")

    @property
    def is_wanted(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self, after: list[Keeper]) -> None:
        """Bring the part up, once all of `after` are ready, and keep it up."""
        self.failures = 0
        if self.is_wanted or self.state == "done":
            return
        self._running = asyncio.create_task(self._keep(after), name=f"keep {self.part.name}")

    async def stop(self) -> None:
        """Stop the part and everything it has started."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        if self.pid is not None:
            await self._end(self.pid)
        await self._become("stopped")

    async def signal(self, number: signal.Signals) -> None:
        """Send a signal to the part's main process, as an outsider would; return after SIGKILL once it is dead."""
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(f"{self.part.name} isn't running")
        os.kill(pid, number)
        if number == signal.SIGKILL:
            async with self.changed:
                await self.changed.wait_for(lambda: self.pid != pid)

    def members(self) -> set[int]:
        """The part's living main process and everything alive that came from it."""
        if self.pid is None:
            return set()
        among = [process for process in processes() if not process.is_zombie]
        family = descendants(self.pid, among)
        family |= {process.pid for process in among if process.session == self.pid}
        family |= {process.pid for process in among if variable(process.pid, _OWNER) == self.part.name}
        return family & {process.pid for process in among}

    async def until_up(self, changed: Callable[[], Awaitable[None]]) -> bool:
        """Wait until the part is up (True) or has failed (False); `changed` is called at each change of state."""
        while True:
            seen = self._changes
            await changed()
            if self.is_up:
                return True
            if self.state in ("failed", "stopped") or self.failures >= _START_ATTEMPTS:
                return False
            async with self.changed:
                await self.changed.wait_for(lambda seen=seen: self._changes != seen)

    async def _keep(self, after: list[Keeper]) -> None:
        await self._become("waiting")
        for other in after:
            async with other.changed:
                await other.changed.wait_for(lambda other=other: other.is_up)
        pause_s = _FIRST_PAUSE_S
        while True:
            status, was_ready, lasted_s = await self._run_once()
            if self.part.is_task and status == 0:
                await self._become("done")
                return
            self.failures = 0 if was_ready else self.failures + 1
            self.reason = f"ended with signal {-status}" if status < 0 else f"exited with status {status}"
            if self.part.is_task and self.failures >= _START_ATTEMPTS:
                await self._become("failed")
                return
            self.restarts += 1
            pause_s = _FIRST_PAUSE_S if lasted_s > _HEALTHY_AFTER_S else pause_s
            await self._become("backing off")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _run_once(self) -> tuple[int, bool, float]:
        """Run the part until it ends: exit status, whether it had become ready, seconds that it lasted."""
        started = time.monotonic()
        await self._become("starting")
        try:
            pid = self.pid = self._spawn()
        except OSError as error:
            self._note(str(error))
            return _CANNOT_START, False, 0.0
        readiness = asyncio.create_task(self._watch_readiness(pid, started))
        try:
            status = await self._children.ended(pid)
            was_ready = self.state == "ready"
        finally:
            readiness.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await readiness
        await self._end(pid)
        return status, was_ready, time.monotonic() - started

    def _spawn(self) -> int:
        for folder in (*self.part.folders, *(path.parent for path in self.part.files)):
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in self.part.files.items():
            path.write_text(text)
        environment = {**os.environ, **self.part.environment, _OWNER: self.part.name}
        with self._log.open("ab") as log:
            return self._children.start(self.part.command, stdout=log, stderr=log, env=environment)

    def _note(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"supervisor: {line}\n")

    async def _watch_readiness(self, pid: int, started: float) -> None:
        if self.part.is_task:
            return
        while not await answers(self.part.ready, self._children):
            if time.monotonic() - started > self.part.start_s:
                self._note(f"not ready within {self.part.start_s:.0f} s")
                os.kill(pid, signal.SIGKILL)
                return
            await asyncio.sleep(_PROBE_EVERY_S)
        await self._become("ready")

    async def _end(self, pid: int) -> None:
        """End a part's process by its own stop signal and, where that isn't enough, kill all that came from it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, self.part.stop_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.part.stop_s):
                await self._children.ended(pid)
        while remains := self.members() | self._strays():
            for member in remains:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            await asyncio.sleep(_SWEEP_EVERY_S)
        await self._children.ended(pid)
        self._children.forget(pid)
        self.pid = None

    def _strays(self) -> set[int]:
        """Orphans that no other part owns: a part may have wiped its name from what it started."""
        me = os.getpid()
        inherited = {process.pid for process in processes() if process.parent == me and not process.is_zombie}
        orphans = {pid for pid in inherited if not self._children.knows(pid)}
        return {pid for pid in orphans if variable(pid, _OWNER) in (None, self.part.name)}

    async def _become(self, state: State) -> None:
        async with self.changed:
            self.state = state
            self.since = time.monotonic()
            self._changes += 1
            self.changed.notify_all()
