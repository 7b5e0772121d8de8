"""What every kind of walls does for a warden."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flip_nnunet.sandbox.box import Box


class SandboxUnavailable(Exception):
    """The walls that the settings ask for cannot be drawn here. Its text says what is missing."""


@dataclass(frozen=True, slots=True)
class Start:
    """How the entrance is started: its environment is all that the box gets of it, its output goes to `output`."""

    command: Sequence[str]
    environment: Mapping[str, str]
    output: int
    descriptors: tuple[int, ...] = ()
    """File descriptors that are passed on."""


class Confinement(Protocol):
    """Draws the walls of boxes."""

    @property
    def own_network(self) -> bool:
        """Whether a box has a loopback interface of its own, and so must have its port brought in."""
        ...

    @property
    def own_user(self) -> int | None:
        """The user id that the entrance must take on; None where it has the right one."""
        ...

    def check(self) -> None:
        """Raise SandboxUnavailable if no box can be made here."""
        ...

    def start(self, box: Box, start: Start) -> subprocess.Popen[bytes]:
        """Start the entrance in `box`; when the returned process is killed, or its parent is, so is all in the box."""
        ...
