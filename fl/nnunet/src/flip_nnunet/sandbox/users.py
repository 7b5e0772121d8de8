"""A user namespace that knows two users: root, to set a box up, and the one whose box it is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_NAMESPACES_BELOW = Path("/proc/sys/user/max_user_namespaces")
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def users_of(user: int) -> Iterator[int]:
    """A file descriptor of a new user namespace. For root to call, in a process of one thread; raises OSError.

    In it root is root over nothing but what the namespace owns, and `user` has the number that it has outside, so
    that files keep their owners. Processes are counted anew there, and no user namespace can be made below it.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _hold_namespace(theirs)
    theirs.close()
    try:
        with ours:
            _expect(ours, "the kernel gives no user namespace")
            _map(child, user)
            ours.send(b".")
            _expect(ours, "the user namespace cannot be closed to further ones")
            namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.waitpid(child, 0)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _map(child: int, user: int) -> None:
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 0 1\n{user} {user} 1\n", "ascii")
    except PermissionError as error:
        raise OSError(f"this root may not have the user {user}") from error


def _hold_namespace(parent: socket.socket) -> None:
    """In a process of its own: be in a new namespace until the parent hangs up. Never returns."""
    try:
        if _LIBC.unshare(_CLONE_NEWUSER) != 0:
            os._exit(1)
        parent.send(b".")
        parent.recv(1)
        _NAMESPACES_BELOW.write_text("0")
        parent.send(b".")
        parent.recv(1)
    finally:
        os._exit(1)


def _expect(child: socket.socket, what_else: str) -> None:
    if not child.recv(1):
        raise OSError(what_else)
