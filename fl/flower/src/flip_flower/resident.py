"""The process that trains a run at a Trust, as its executor sees it: it stays for the whole run.

So a run pays for imports and for nnU-Net's trainer once, not with every message.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from flip_apps.workers import CODE
from flip_nnunet.message import canonical_json
from flip_nnunet.sandbox import Ending, boxed, ending_of

from flip_flower.site_settings import site_settings
from flip_flower.wire import Request

_LOOK_S = 2.0
"""How often it is looked whether an answer is still wanted, and whether the process that owes it still lives."""
_LEAVE_S = 5.0


class TrainerEnded(Exception):
    """The process ended while it owed an answer. `ending`: why its box was ended, if it was."""

    def __init__(self, text: str, ending: Ending | None) -> None:
        self.ending = ending
        super().__init__(text)


class AnswerUnwanted(Exception):
    """The run is over; nobody waits for the answer any more."""


class Resident:
    """One run's trainer, in a box. Whoever makes it must `end` it."""

    def __init__(self, run_id: str, site: str) -> None:
        self.run_id = run_id
        settings = site_settings()
        box = settings.box(run_id, Path(__file__).resolve().parent, *CODE)
        ours, theirs = socket.socketpair()
        with theirs:
            channel = theirs.fileno()
            command = [sys.executable, "-u", "-m", "flip_flower.trainer_script", "--run", run_id, "--site", site]
            self._process = subprocess.Popen(  # noqa: S603 - this package's own
                boxed(
                    [*command, "--channel", str(channel)],
                    box.model_copy(update={"channel": channel}),
                    settings.sandbox,
                ),
                pass_fds=[channel],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = Connection(ours.detach())

    def ask(self, request: Request, is_wanted: Callable[[], bool]) -> bytes:
        """The trainer's answer. Raises `TrainerEnded`, or `AnswerUnwanted` once `is_wanted` says no."""
        try:
            for frame in (request.operation.encode(), canonical_json(request.job).encode(), request.message):
                self._channel.send_bytes(frame)
            while not self._channel.poll(_LOOK_S):
                if self._process.poll() is not None:  # its children may hold the channel open
                    raise self._ended()
                if not is_wanted():
                    raise AnswerUnwanted(f"run {self.run_id} is over")
            return self._channel.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def leave(self) -> None:
        """Let the trainer go in its own time, but not for long."""
        self._channel.close()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.end()

    def end(self) -> None:
        """Kill the trainer and what it started."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ended(self) -> TrainerEnded:
        try:
            status = self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            return TrainerEnded("it closed its channel", None)
        return TrainerEnded(f"its exit status is {status}", ending_of(status))
