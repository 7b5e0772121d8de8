"""A box of Linux namespaces, made by bubblewrap: for Trusts that run FLIP on a machine of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from flip_nnunet.sandbox.box import Box
from flip_nnunet.sandbox.port import SandboxUnavailable, Start
from flip_nnunet.sandbox.settings import SandboxSettings
from flip_nnunet.sandbox.users import users_of

_PROGRAM = "bwrap"
_TRIAL_S = 60.0
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"),
    *("/etc/hosts", "/etc/nsswitch.conf", "/sys/devices/system"),
)
"""`/etc/hosts` says what localhost is; libraries count processors in `/sys/devices/system`."""
_DRIVER = Path("/sys")
"""Where the driver of a GPU shows what there is."""
_SMALL_BYTES = 256 * 2**20
_PACKAGE = Path(__file__).resolve().parents[1]

_Mount = tuple[str, ...]


class Bubblewrap:
    """Namespaces for mounts, network, processes, shared memory, host name and users.

    Nothing in the box is root, not even in name: a client that runs as root gives its boxes a user of their own in a
    user namespace that knows only that one. No further user namespace can be made inside.
    """

    own_network = True

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self.own_user = settings.user if os.geteuid() == 0 else None

    def check(self) -> None:
        nothing = Start(["/usr/bin/true"], {"PATH": os.environ.get("PATH", os.defpath)}, subprocess.PIPE)
        try:
            process = self.start(Box(), nothing)
        except FileNotFoundError as error:
            raise SandboxUnavailable(f"{_PROGRAM} is missing; install bubblewrap") from error
        except OSError as error:
            raise SandboxUnavailable(f"no box can be made here: {error}") from error
        try:
            said, _ = process.communicate(timeout=_TRIAL_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise SandboxUnavailable(f"{_PROGRAM} did not end within {_TRIAL_S:g} s") from error
        if process.returncode != 0:
            raise SandboxUnavailable(f"{_PROGRAM} makes no box here: {said.decode(errors='replace').strip()}")

    def start(self, box: Box, start: Start) -> subprocess.Popen[bytes]:
        for folder in box.writable:
            folder.mkdir(parents=True, exist_ok=True)
            if self.own_user is not None:
                os.chown(folder, self.own_user, self.own_user)
        with contextlib.ExitStack() as stack:
            users = None if self.own_user is None else stack.enter_context(users_of(self.own_user))
            descriptors = start.descriptors if users is None else (*start.descriptors, users)
            return subprocess.Popen(  # noqa: S603 - the command is this package's own
                [_PROGRAM, *_users(users), *walls(box, self._settings), "--", *start.command],
                env=start.environment,
                stdin=subprocess.DEVNULL,
                stdout=start.output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
            )


def walls(box: Box, settings: SandboxSettings) -> list[str]:
    """The options of bubblewrap that make the box, but for whose it is."""
    return [
        *("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "trainer", "--new-session", "--die-with-parent"),
        *("--proc", "/proc", "--dev", "/dev"),
        *_files(box, settings),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(box.folder)),
    ]


def _users(namespace: int | None) -> list[str]:
    """As root, the namespace made for the box and what it takes to change the user; else bubblewrap makes one."""
    if namespace is None:
        return ["--unshare-user", "--disable-userns"]
    keep = ("CAP_SETUID", "CAP_SETGID")
    return ["--userns", str(namespace), "--cap-drop", "ALL", *(word for name in keep for word in ("--cap-add", name))]


def _files(box: Box, settings: SandboxSettings) -> Iterator[str]:
    """Mounts from the outer to the inner folder. What lies between is made 0755; by itself bubblewrap makes it 0700."""
    mounts = _mounts(box, settings)
    made = {Path("/"), Path("/dev"), Path("/proc")}
    for place in sorted(mounts):
        for parent in reversed(place.parents):
            if parent not in made and _is_new(parent, mounts):
                yield from ("--perms", "0755", "--dir", str(parent))
                made.add(parent)
        yield from mounts[place]


def _is_new(folder: Path, mounts: Mapping[Path, _Mount]) -> bool:
    """Whether nothing of the machine lies at `folder`: the mount that it is in, if any, is one in memory."""
    around = [place for place in (folder, *folder.parents) if place in mounts]
    return not around or "--tmpfs" in mounts[around[0]]


def _mounts(box: Box, settings: SandboxSettings) -> dict[Path, _Mount]:
    driver = sorted(Path("/dev").glob("nvidia*"))
    system = [*map(Path, (*_SYSTEM, sys.prefix, sys.base_prefix)), _PACKAGE, *([_DRIVER] if driver else [])]
    mounts = {place: ("--ro-bind", str(place), str(place)) for place in system if place.exists()}
    mounts |= {place: ("--dev-bind", str(place), str(place)) for place in driver}
    mounts |= {place: ("--bind", str(place), str(place)) for place in box.writable}
    mounts |= {place: _in_memory(place, _SMALL_BYTES) for place in box.scratch}
    mounts |= {place: ("--ro-bind", str(place), str(place)) for place in box.readable}
    mounts |= {place: ("--ro-bind", str(other), str(place)) for place, other in box.covered.items()}
    mounts[Path("/tmp")] = _in_memory(Path("/tmp"), settings.memory_bytes // 8)  # noqa: S108
    mounts[Path("/dev/shm")] = _in_memory(Path("/dev/shm"), settings.memory_bytes // 4)  # noqa: S108
    return mounts


def _in_memory(place: Path, size: int) -> _Mount:
    """A folder of at most `size` bytes, to which anybody in the box may write."""
    return ("--perms", "1777", "--size", str(size), "--tmpfs", str(place))
