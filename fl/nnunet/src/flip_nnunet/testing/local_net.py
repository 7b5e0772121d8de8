"""A whole net on one machine: server, two clients and the driver, each as the platform runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import psutil

from flip_nnunet.events import read_events
from flip_nnunet.keeper import processes_of

TRUSTS = ("KCH", "UCLH")
PREDICTIONS = {"KCH": "masks", "UCLH": "scores"}
"""What each gives of what is predicted there."""
DEADLINE_S = 400.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S, *, every_s: float = 0.1) -> Any:
    """The first true value of `condition`; fails the test after the deadline, saying what was waited for."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for: {what}"
        time.sleep(every_s)
    return value


OUTPUT_MIB = 8 * 1024
"""How much a run may write at a site."""


class LocalNet(ABC):
    """Starts, kills and asks the parts of one net. Parts are named `server`, `KCH`, `UCLH`."""

    package: ClassVar[str]
    """What binds the framework: its modules are started."""
    ports: ClassVar[Iterable[int]]

    @abstractmethod
    def make_kits(self, port: int) -> None:
        """Make the kits of the net `net1` over `TRUSTS`, whose server listens at `port`, in `self.kits`."""

    @abstractmethod
    def is_of_a_run(self, process: psutil.Process) -> bool:
        """Whether a process of a kit is there for a run only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kits = folder / "kits"
        self.runs = folder / "runs"
        self.hub = folder / "hub"
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        self.port = self._free_port()
        self.make_kits(self.port)
        self._driver = subprocess.Popen(  # noqa: S603 - this package's own modules
            self._module("driver", "--admin-kit", self.kits / "admin", "--jobs", folder / "jobs"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log("driver"),
            text=True,
        )

    def start(self, part: str) -> None:
        kit = self.kits / part
        command = self._module("server", "--kit", kit)
        if part != "server":
            command = self._module("client", "--kit", kit, "--site", part)
        told = {
            "RUNS": str(self.runs / part),
            "MINIMUM_CASES": "1",
            "PREDICTIONS": PREDICTIONS.get(part, "scores"),
            "SANDBOX": json.dumps({"output_mib": OUTPUT_MIB}),
        }
        environment = os.environ | {f"{self.package.upper()}_{name}": value for name, value in told.items()}
        self._keepers[part] = subprocess.Popen(  # noqa: S603 - this package's own modules
            command, env=environment, stdout=self._log(part), stderr=subprocess.STDOUT
        )

    def kill(self, part: str) -> None:
        """SIGKILL the framework's process of a part, and wait until its keeper has cleaned up behind it."""
        [kept] = psutil.Process(self._keepers[part].pid).children()
        kept.kill()
        self._keepers[part].wait(DEADLINE_S)

    def is_running(self, part: str) -> bool:
        """Whether a part that was started has not ended since."""
        return self._keepers[part].poll() is None

    def start_all(self) -> None:
        for part in ("server", *TRUSTS):
            self.start(part)
        self.wait_for_sites()

    def wait_for_sites(self) -> None:
        wait_until(lambda: self.connected() == sorted(TRUSTS), "both sites connected")

    def connected(self) -> list[str]:
        """The sites that the server counts as connected; none while it doesn't answer."""
        reply = self.send(op="connected")
        return reply["result"]["sites"] if reply["ok"] else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        for keeper in self._keepers.values():
            keeper.terminate()
        for process in (self._driver, *self._keepers.values()):
            process.wait(DEADLINE_S)

    def send(self, **request: Any) -> dict[str, Any]:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(request) + "\n")
        self._driver.stdin.flush()
        return json.loads(self._driver.stdout.readline())

    def ask(self, **request: Any) -> dict[str, Any]:
        reply = self.send(**request)
        assert reply["ok"], reply
        return reply["result"]

    def submit(self, job: dict[str, Any], attempt: int = 1) -> str:
        run_id = job["run_id"]
        folder = str(self.hub / run_id)
        return self.ask(op="submit", run_id=run_id, attempt=attempt, trusts=TRUSTS, run_folder=folder, job=job)["job"]

    def state(self, job: str) -> str:
        return self.ask(op="status", job=job)["state"]

    def wait_for_end(self, job: str) -> str:
        """How the job ended; asks as often as the platform does, for each question costs the net's server time."""
        return wait_until(
            lambda: state if (state := self.state(job)) not in {"waiting", "running"} else None,
            f"the end of {job}",
            every_s=1.0,
        )

    def events(self, run_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        return [event for event in read_events(self.hub / run_id) if kind in {None, event["kind"]}]

    def kept(self) -> set[int]:
        """The framework's long-lived processes, one a part."""
        return {child.pid for keeper in self._keepers.values() for child in _children(keeper)}

    def of_runs(self) -> list[psutil.Process]:
        """The processes that are there for a run only, at the hub and at each site."""
        parts = [process for part in ("server", *TRUSTS) for process in processes_of(self.kits / part)]
        return [process for process in parts if self.is_of_a_run(process)]

    def trainers(self) -> list[psutil.Process]:
        """The trainers themselves, and not what their boxes are made of: one at each site where a run is under way."""
        script = f"{self.package}.trainer_script"
        return [process for process in self.of_runs() if command_of(process)[3:4] == [script]]

    def trainer(self, site: str) -> psutil.Process:
        """The trainer at a site where a run is under way."""
        at_site = {process.pid for process in processes_of(self.kits / site)}
        [trainer] = [process for process in self.trainers() if process.pid in at_site]
        return trainer

    def _module(self, name: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", f"{self.package}.{name}", *map(str, arguments)]

    def _log(self, name: str) -> Any:
        return (self.folder / f"{name}.log").open("a")

    def _free_port(self) -> int:
        for port in self.ports:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise RuntimeError(f"no free port in {self.ports}")


def command_of(process: psutil.Process) -> list[str]:
    """The words of a process's command line; none for a process that has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _children(keeper: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(keeper.pid).children()
    except psutil.NoSuchProcess:
        return []
