"""What the processes of a box use together, measured from outside it."""

from __future__ import annotations

import errno
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

_KIB = 1024
_BLOCK_BYTES = 512
_LEAST_BYTES = 4096
"""What a file counts at least, or a million empty ones would count as nothing."""
_END_S = 10.0


Family = Sequence[psutil.Process]
"""A process and all its descendants."""


def family_of(pid: int) -> Family:
    """It and its descendants; nobody where it has ended. Looks at every process of the machine, so ask once a look."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_of(family: Family, enough: int) -> float:
    """Bytes of memory that they hold together and that could not be got back from files.

    While the sum of what each one holds is below `enough` that is the answer; else what they share is counted once,
    which takes longer to find out.
    """
    held = sum(_held(process) for process in family)
    return held if held <= enough else sum(_own_share(process) for process in family)


def tasks_of(family: Family) -> int:
    """How many threads they have together, their first ones included."""
    return sum(_tasks(process) for process in family)


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all its descendants. Raises TimeoutError if they do not end."""
    family = family_of(process.pid)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(_END_S)
    if psutil.wait_procs(family, _END_S)[1]:
        raise TimeoutError("processes of a box do not end")


class Output:
    """What has been added to folders since this was made."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises OSError if a folder cannot be measured."""
        self._folders = folders
        self._before = self._allocated()
        if math.isinf(self._before):
            raise OSError("what is in its folders already cannot be measured")

    def grown(self) -> float:
        """In bytes; infinite where a folder cannot be measured, for then somebody has made it so."""
        return self._allocated() - self._before

    def _allocated(self) -> float:
        return sum(_allocated(folder) for folder in self._folders)


def _allocated(folder: Path) -> float:
    """Bytes on the disk below `folder`, which others may change meanwhile."""
    total, left = 0, [str(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    total += _size(entry)
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno in {errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP}:
                return math.inf
            raise
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return max(status.st_blocks * _BLOCK_BYTES, _LEAST_BYTES)


def _held(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return memory.rss


def _tasks(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.NoSuchProcess:
        return 0


def _own_share(process: psutil.Process) -> int:
    """Memory of no file, that which is shared divided by the number of those who share it."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    except PermissionError:  # it has made itself unreadable to its own user
        return _held(process)
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) * _KIB
