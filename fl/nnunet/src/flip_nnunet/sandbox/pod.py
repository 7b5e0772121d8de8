"""A box that is there already: the container in which the Trust's client runs, on Kubernetes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flip_nnunet.sandbox.box import Box
from flip_nnunet.sandbox.port import SandboxUnavailable, Start

_STATUS, _CGROUP = Path("/proc/self/status"), Path("/sys/fs/cgroup")
_UNLIMITED = "max"
_FILTERED = "2"


class Pod:
    """Draws no walls; it makes sure, as far as can be seen from inside, that the container has them.

    What cannot be seen is the network policy, and what else is mounted: docs/sandbox.md says what both must be.
    """

    own_network = False
    own_user = None

    def __init__(self, status: Path = _STATUS, cgroup: Path = _CGROUP) -> None:
        self._status = status
        self._cgroup = cgroup

    def check(self) -> None:
        if lacking := [*self._lacking_of_the_process(), *self._lacking_of_the_container()]:
            raise SandboxUnavailable(f"this container is no sandbox: {'; '.join(lacking)}")

    def start(self, box: Box, start: Start) -> subprocess.Popen[bytes]:
        for folder in (*box.writable, *box.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(  # noqa: S603 - the command is this package's own
            start.command,
            cwd=box.folder,
            env=start.environment,
            stdin=subprocess.DEVNULL,
            stdout=start.output,
            stderr=subprocess.STDOUT,
            pass_fds=start.descriptors,
        )

    def _lacking_of_the_process(self) -> list[str]:
        lines = (line.partition(":") for line in self._status.read_text("ascii").splitlines())
        status = {name: value.split() for name, _, value in lines}
        lacking: list[str] = []
        if "0" in status["Uid"]:
            lacking.append("it runs as root (runAsNonRoot)")
        if int(status["CapPrm"][0], 16):
            lacking.append("it has capabilities (capabilities.drop: [ALL])")
        if status["NoNewPrivs"] != ["1"]:
            lacking.append("it may gain privileges (allowPrivilegeEscalation: false)")
        if status["Seccomp"] != [_FILTERED]:
            lacking.append("no system call is filtered (seccompProfile: RuntimeDefault)")
        return lacking

    def _lacking_of_the_container(self) -> list[str]:
        return [
            f"{what} is not limited ({how})"
            for what, file, how in (
                ("memory", "memory.max", "resources.limits.memory"),
                ("the number of processes", "pids.max", "the kubelet's podPidsLimit"),
            )
            if self._limit(file) == _UNLIMITED
        ]

    def _limit(self, name: str) -> str:
        try:
            return (self._cgroup / name).read_text("ascii").strip()
        except FileNotFoundError:
            return _UNLIMITED
