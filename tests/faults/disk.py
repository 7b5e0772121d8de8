"""A small disk of its own for what a net does at one Trust, which a case can fill up."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "3g"
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
    """Leave nothing free on the disk of `folder`."""
    with (folder / _BALLAST).open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(folder).free)


def clear(folder: Path) -> None:
    """Undo `fill`."""
    (folder / _BALLAST).unlink(missing_ok=True)
