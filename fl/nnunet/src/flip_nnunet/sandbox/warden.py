"""Stands outside a box, watches it, and ends it: `flip_nnunet.sandbox.boxed` gives its command line.

It looks at what the processes of the box use together, which no limit of a single process bounds; passes on to the log
what they print, up to a limit; and carries connections to the one port of this machine that they may reach.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flip_nnunet.keeper import KIT_VARIABLE
from flip_nnunet.sandbox.box import Order
from flip_nnunet.sandbox.confinement import confinement
from flip_nnunet.sandbox.ending import Ending
from flip_nnunet.sandbox.entrance import Entrance
from flip_nnunet.sandbox.passage import open_passage
from flip_nnunet.sandbox.port import Start
from flip_nnunet.sandbox.settings import SandboxSettings
from flip_nnunet.sandbox.usage import Family, Output, end_family, family_of, memory_of, tasks_of

_LOOK_S = 0.25
_LOOKS_A_MEASURE = 8
"""Of the disk: it takes longer to look at than the memory, and fills more slowly."""
_TASKS_OF_BUBBLEWRAP = 2
_LOG_BYTES = 64 * 2**20
_CHUNK_BYTES = 64 * 1024
_LAST_WORDS_S = 1.0
_PASSED_ON = (
    *("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", KIT_VARIABLE),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)


class LimitReached(Exception):
    """The box used more than it may."""

    def __init__(self, ending: Ending, text: str) -> None:
        self.ending = ending
        super().__init__(text)


@dataclass(slots=True)
class Watch:
    """What the box may use, and since when it does."""

    settings: SandboxSettings
    process: subprocess.Popen[bytes]
    output: Output

    def until_end(self) -> int:
        """The command's exit status. Raises LimitReached."""
        deadline = time.monotonic() + self.settings.time_s
        looks = 0
        while True:
            try:
                status = self.process.wait(_LOOK_S)
                return status if status >= 0 else 128 - status
            except subprocess.TimeoutExpired:
                looks += 1
            if time.monotonic() > deadline:
                raise LimitReached(Ending.TIME, f"it ran for {self.settings.time_s} s")
            family = family_of(self.process.pid)
            self._look_at_memory(family)
            self._look_at_processes(family)
            if looks % _LOOKS_A_MEASURE == 0:
                self._look_at_output()

    def _look_at_memory(self, family: Family) -> None:
        limit = self.settings.memory_bytes
        if memory_of(family, limit) > limit:
            raise LimitReached(Ending.MEMORY, f"its processes use more than {self.settings.memory_mib} MiB of memory")

    def _look_at_processes(self, family: Family) -> None:
        """Where the box's user is the machine's root under another number, the kernel counts none of them."""
        if tasks_of(family) > self.settings.processes + _TASKS_OF_BUBBLEWRAP:
            raise LimitReached(Ending.PROCESSES, f"it has more than {self.settings.processes} processes and threads")

    def _look_at_output(self) -> None:
        if self.output.grown() > self.settings.output_bytes:
            raise LimitReached(Ending.OUTPUT, f"it has written more than {self.settings.output_mib} MiB")


def run(order: Order, command: Sequence[str]) -> int:
    """Run `command` to its end or its limit; the exit status. To be called from the main thread, the only one."""
    try:
        output = Output(order.box.writable)
        process, log = _start(order, command)
    except OSError as error:
        _say(f"no box can be made: {error}")
        return Ending.UNAVAILABLE
    try:
        return Watch(order.settings, process, output).until_end()
    except LimitReached as reached:
        end_family(process)
        _say(f"the box was ended: {reached}")
        return reached.ending
    finally:
        log.join(_LAST_WORDS_S)


def _start(order: Order, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], threading.Thread]:
    """The box's outermost process, and the thread that passes on what it prints. Raises OSError."""
    box, walls = order.box, confinement(order.settings)
    port = box.port if walls.own_network else None
    ours, theirs = socket.socketpair()
    way_in = Entrance(
        user=walls.own_user,
        memory_bytes=order.settings.memory_bytes,
        file_bytes=order.settings.output_bytes,
        processes=order.settings.processes if walls.own_network else None,
        port=port,
        handover=theirs.fileno(),
    )
    reading, writing = os.pipe()
    inherited = (theirs.fileno(), *([] if box.channel is None else [box.channel]))
    start = Start([*way_in.command(), *command], _environment(box.environment), writing, inherited)
    try:
        process = walls.start(box, start)
    finally:
        os.close(writing)
        theirs.close()
    log = threading.Thread(target=_pass_on, args=(os.fdopen(reading, "rb", buffering=0),), name="log", daemon=True)
    log.start()
    if box.channel is not None:
        os.close(box.channel)  # or its other end would not see that the box has let go of it
    open_passage(ours, port)
    return process, log


def _environment(names: Sequence[str]) -> dict[str, str]:
    """All that the box learns of the warden's environment, and what is so in every box."""
    passed_on = {name: os.environ[name] for name in (*_PASSED_ON, *names) if name in os.environ}
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": "/tmp",  # noqa: S108 - the box's own
        "USER": "trainer",
        "LOGNAME": "trainer",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**passed_on, **own}


def _pass_on(box: IO[bytes]) -> None:
    """Write to the log what the box prints; what is too much is read and dropped, or the box would stand still."""
    left = _LOG_BYTES
    while chunk := box.read(_CHUNK_BYTES):
        if left > 0:
            os.write(sys.stderr.fileno(), chunk[:left])
            left -= len(chunk)
            if left <= 0:
                _say(f"the box has printed {_LOG_BYTES >> 20} MiB; what it prints from here on is dropped")


def _say(text: str) -> None:
    os.write(sys.stderr.fileno(), f"sandbox: {text}\n".encode())


def main() -> None:
    order, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        raise SystemExit("usage: python -m flip_nnunet.sandbox.warden ORDER -- COMMAND...")
    sys.exit(run(Order.model_validate_json(order), command))


if __name__ == "__main__":
    main()
