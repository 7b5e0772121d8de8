"""What /proc says of processes: whose they are, and how much memory they take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it in this process's own pid namespace."""

    pid: int
    parent: int
    session: int
    is_zombie: bool


def processes() -> list[Process]:
    """Every process of this pid namespace."""
    return [process for pid in _pids() if (process := _read(pid)) is not None]


def variable(pid: int, name: str) -> str | None:
    """The value of an environment variable that the process was started with, where that can still be read."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except (*_GONE, PermissionError):
        return None
    prefix = f"{name}=".encode()
    values = (entry[len(prefix) :] for entry in environment.split(b"\0") if entry.startswith(prefix))
    return next((value.decode(errors="replace") for value in values), None)


def descendants(root: int, among: list[Process]) -> set[int]:
    """`root` and all that it started, directly or not, of the processes in `among`."""
    children: dict[int, list[int]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = set[int](), [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def pss_mib(pid: int) -> float:
    """The proportional set size of a process in MiB; 0 when it is gone."""
    try:
        rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
    except (*_GONE, PermissionError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0.0)


def holder_of(port: int) -> str:
    """Who listens on a TCP port, as `name (pid N)`, or `another process` where that is hidden from this user."""
    sockets = set(_listening_inodes(port))
    for pid in _pids():
        if sockets & set(_socket_inodes(pid)):
            return f"{(_PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    return "another process"


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir(_PROC) if entry.isdecimal())  # noqa: PTH208 (thousands of names)


def _read(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except _GONE:
        return None
    # The command's name stands in brackets and may hold spaces and brackets itself.
    state, parent, _, session = stat.rpartition(")")[2].split()[:4]
    return Process(pid=pid, parent=int(parent), session=int(session), is_zombie=state == "Z")


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _socket_inodes(pid: int) -> Iterator[str]:
    try:
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            target = os.readlink(descriptor)  # noqa: PTH115 (a socket's link is no path)
            if target.startswith("socket:["):
                yield target[8:-1]
    except (*_GONE, PermissionError):
        return
