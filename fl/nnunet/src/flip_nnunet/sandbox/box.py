"""What one boxed command may have, and the command line that gives it just that."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flip_nnunet.sandbox.settings import SandboxSettings


class Box(BaseModel):
    """All that a boxed command may have of this machine, besides the system's programs and this interpreter's packages.

    Paths are absolute and without symbolic links; inside they are the same as outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    readable: tuple[Path, ...] = ()
    """Files and folders that are there to be read."""
    covered: Mapping[Path, Path] = {}
    """Files that the command expects and must not have, each with a readable one that takes its place."""
    writable: tuple[Path, ...] = ()
    """Folders of this machine's disk. What is written there stays and counts as output; they are made if missing."""
    scratch: tuple[Path, ...] = ()
    """Folders in memory, empty at first but for what is `readable` in them. They end with the box."""
    environment: tuple[str, ...] = ()
    """Names of the warden's environment variables that are passed on."""
    port: int | None = None
    """The one port of 127.0.0.1 that can be reached from inside, by the same address."""
    channel: int | None = None
    """A file descriptor that is passed on."""
    folder: Path = Path("/tmp")  # noqa: S108 - the box's own, in memory
    """Where the command starts."""


class Order(BaseModel):
    """What a warden is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: Box
    settings: SandboxSettings


def boxed(command: Sequence[str], box: Box, settings: SandboxSettings) -> list[str]:
    """The command line of a warden that runs `command` in `box`.

    It ends as the command ends, with its exit status, or when the box used more than it may, with one of
    `Ending`. When it is killed, so is everything in the box. It reads no standard input.
    """
    order = Order(box=box, settings=settings).model_dump_json()
    return [sys.executable, "-u", "-m", "flip_nnunet.sandbox.warden", order, "--", *command]
