"""The first program in a box: sets what the kernel is to limit, and becomes the command.

It runs as a file, by itself: the packages of the interpreter are none of its business, and importing them takes long.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Entrance:
    """What is done on the way in."""

    user: int | None
    """The user and group id to take on."""
    memory_bytes: int
    """How much memory each process may write to."""
    file_bytes: int
    processes: int | None
    """Processes and threads of the box; None where they are counted together with others'."""
    port: int | None
    """A port of the box's 127.0.0.1 to listen at; whoever made the box accepts the connections."""
    handover: int
    """The file descriptor of a Unix socket over which the listening socket is given."""

    def command(self) -> list[str]:
        """What stands before a command that enters this way."""
        return [sys.executable, "-I", "-S", __file__, json.dumps(asdict(self)), "--"]

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def enter(self) -> None:
        """Limits come last, as they hold for this process too."""
        with socket.socket(fileno=self.handover) as warden:
            if self.port is not None:
                with socket.create_server(("127.0.0.1", self.port)) as own:
                    socket.send_fds(warden, [b"."], [own.fileno()])
        if self.user is not None:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_DATA, self.memory_bytes)
        _limit(resource.RLIMIT_FSIZE, self.file_bytes)
        if self.processes is not None:
            _limit(resource.RLIMIT_NPROC, self.processes)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and so would the command


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))


def main() -> None:
    order, _, *command = sys.argv[1:]
    Entrance.from_json(order).enter()
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
