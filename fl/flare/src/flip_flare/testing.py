"""A whole net on one machine for tests: server, two clients and the driver, each as the platform runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from flip_nnunet.events import read_events
from flip_nnunet.keeper import processes_of

from flip_flare.provision import Net, provision

TRUSTS = ("KCH", "UCLH")
PREDICTIONS = {"KCH": "masks", "UCLH": "scores"}
"""What each gives of what is predicted there."""
PORTS = range(29500, 29590)
DEADLINE_S = 400.0
_TRAINER = "flip_flare.trainer_script"


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; fails the test after the deadline, saying what was waited for."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for: {what}"
        time.sleep(0.1)
    return value


class LocalNet:
    """Starts, kills and asks the parts of one net. Parts are named `server`, `KCH`, `UCLH`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kits = folder / "kits"
        self.runs = folder / "runs"
        self.hub = folder / "hub"
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        provision(Net("net1", TRUSTS, free_port()), self.kits)
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
        told = {"RUNS": str(self.runs / part), "MINIMUM_CASES": "1", "PREDICTIONS": PREDICTIONS.get(part, "scores")}
        environment = os.environ | {f"FLIP_FLARE_{name}": value for name, value in told.items()}
        self._keepers[part] = subprocess.Popen(  # noqa: S603 - this package's own modules
            command, env=environment, stdout=self._log(part), stderr=subprocess.STDOUT
        )

    def kill(self, part: str) -> None:
        """SIGKILL the FLARE process of a part, and wait until its keeper has cleaned up behind it."""
        [flare] = psutil.Process(self._keepers[part].pid).children()
        flare.kill()
        self._keepers[part].wait(DEADLINE_S)

    def start_all(self) -> None:
        for part in ("server", *TRUSTS):
            self.start(part)
        self.wait_for_sites()

    def wait_for_sites(self) -> None:
        def all_connected() -> bool:
            reply = self.send(op="connected")
            return reply["ok"] and reply["result"]["sites"] == sorted(TRUSTS)

        wait_until(all_connected, "both sites connected")

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
        return wait_until(
            lambda: state if (state := self.state(job)) not in {"waiting", "running"} else None, f"the end of {job}"
        )

    def events(self, run_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        return [event for event in read_events(self.hub / run_id) if kind in {None, event["kind"]}]

    def trainers(self) -> list[psutil.Process]:
        """The processes of jobs: all but the parent that each part keeps running."""
        parents = {child.pid for keeper in self._keepers.values() for child in children(keeper)}
        parts = [process for part in ("server", *TRUSTS) for process in processes_of(self.kits / part)]
        return [process for process in parts if process.pid not in parents]

    def training(self) -> list[psutil.Process]:
        """The trainers themselves, one at each site where a job is under way."""
        return [process for process in self.trainers() if _TRAINER in command_of(process)]

    def trainer(self, site: str) -> psutil.Process:
        """The trainer at a site where a job is under way."""
        [trainer] = [process for process in processes_of(self.kits / site) if _TRAINER in command_of(process)]
        return trainer

    def _module(self, name: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", f"flip_flare.{name}", *map(str, arguments)]

    def _log(self, name: str) -> Any:
        return (self.folder / f"{name}.log").open("a")


def command_of(process: psutil.Process) -> list[str]:
    """The words with which a process was started, up to the module it runs; none for one that has just ended."""
    try:
        return process.cmdline()[:4]
    except psutil.NoSuchProcess:
        return []


def children(keeper: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(keeper.pid).children()
    except psutil.NoSuchProcess:
        return []


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port in {PORTS}")
