"""Starts processes and collects the exit statuses of every child, as process 1 of a pid namespace must."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any


class Children:
    """Starts processes and reaps every child of this process, its own and the orphans that it inherits."""

    def __init__(self) -> None:
        self._endings: dict[int, asyncio.Future[int]] = {}

    def start(self, command: tuple[str, ...], **options: Any) -> int:
        """Start a process in a session of its own; its pid."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        process.returncode = 0  # `reap` collects the real one: Popen must neither wait nor warn
        self._endings[process.pid] = asyncio.get_running_loop().create_future()
        return process.pid

    async def ended(self, pid: int) -> int:
        """Wait until a started process has ended; its exit status, negative for a signal."""
        return await asyncio.shield(self._endings[pid])

    def reap(self) -> None:
        """Collect every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ending = self._endings.get(pid)
            if ending is not None and not ending.done():
                ending.set_result(os.waitstatus_to_exitcode(status))

    def forget(self, pid: int) -> None:
        """Drop what is known of a process that has ended."""
        self._endings.pop(pid, None)

    def knows(self, pid: int) -> bool:
        return pid in self._endings
