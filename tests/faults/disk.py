"""A small disk of its own for what a net does at one Trust, which a case can fill up."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "1g"
_PIECES = (2**26, 2**20, 2**12)
_BALLAST = "ballast"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Have a file system in memory at `folder` while the block lasts. Only root can: others play no full disks."""
    if os.geteuid() != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "small", str(folder)), check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", str(folder)), check=True)


def fill(folder: Path) -> None:
    """Leave nothing free on the disk of `folder`, whoever else writes there."""
    with (folder / _BALLAST).open("wb") as ballast:
        size = 0
        for piece in _PIECES:
            with contextlib.suppress(_Full):
                while True:
                    _add(ballast.fileno(), size, piece)
                    size += piece


class _Full(Exception):
    """There is no room for more."""


def _add(file: int, at: int, size: int) -> None:
    try:
        os.posix_fallocate(file, at, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from error


def clear(folder: Path) -> None:
    """Undo `fill`."""
    (folder / _BALLAST).unlink(missing_ok=True)
