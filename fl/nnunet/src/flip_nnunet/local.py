"""A whole federation on one machine, without any FL framework: one spawned process a site.

    python -m flip_nnunet.local --site KCH=FOLDER --site UCLH=FOLDER --payload FILE --work FOLDER

Each site's folder holds `nnUNet_raw/DatasetXYZ_name`. Events are printed as JSON, one a line; the results lie in
`WORK/hub/results`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from flip_nnunet.federation import federate
from flip_nnunet.job import Job
from flip_nnunet.message import NO_ANSWER, Answers, Json, Message, SiteFailure
from flip_nnunet.payload import PROFILES, TrainingPayload
from flip_nnunet.store import FolderStore

_END_S = 10.0


class LocalSites:
    """`federation.Sites` over processes of this machine; the site `NAME` works in `work/sites/NAME`."""

    def __init__(self, data: Mapping[str, Path], work: Path, job: Job, minimum_cases: int) -> None:
        self._data = dict(data)
        self._work = work
        self._job = job
        self._minimum_cases = minimum_cases
        self._processes: dict[str, tuple[BaseProcess, Connection]] = {}

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        for site, data in self._data.items():
            ours, theirs = spawn.Pipe()
            arguments = (theirs, site, data, self._work / "sites" / site, self._job, self._minimum_cases)
            process = spawn.Process(target=_serve, args=arguments, name=f"site-{site}")
            process.start()
            theirs.close()
            self._processes[site] = process, ours
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process, connection in self._processes.values():
            connection.close()
            process.join(0 if error else _END_S)
            if process.is_alive():
                process.kill()
                process.join()

    def names(self) -> list[str]:
        return list(self._data)

    def processes(self) -> dict[str, int]:
        """The process id of each site."""
        return {site: process.pid for site, (process, _) in self._processes.items() if process.pid is not None}

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> Answers:
        """As `federation.Sites`; read in the order of names, the others' answers wait at their sites."""
        asked = sorted(self.names() if sites is None else sites)
        reached = {site for site in asked if self._send(site, operation, message)}
        for site in asked:
            yield site, self._receive(site) if site in reached else _ended()

    def _send(self, site: str, operation: str, message: Message) -> bool:
        connection = self._processes[site][1]
        try:
            connection.send_bytes(operation.encode())
            connection.send_bytes(message.to_bytes())
        except OSError:
            return False
        return True

    def _receive(self, site: str) -> Message:
        try:
            return Message.from_bytes(self._processes[site][1].recv_bytes())
        except (EOFError, OSError):
            return _ended()


def _ended() -> Message:
    return SiteFailure(NO_ANSWER, "the site's process has ended").as_message()


def _serve(connection: Connection, site: str, data: Path, work: Path, job: Job, minimum_cases: int) -> None:
    """A site's process: answers until the hub closes the connection."""
    from flip_nnunet.worker import Worker  # noqa: PLC0415 - the hub's process has no use for nnU-Net's trainer

    logging.basicConfig(level=logging.WARNING, format=f"{site} %(levelname)s %(name)s %(message)s")
    worker = Worker(site, data, work, job, minimum_cases)
    while True:
        try:
            operation = connection.recv_bytes().decode()
            message = Message.from_bytes(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(worker.handle(operation, message).to_bytes())


def main() -> None:
    arguments = _arguments()
    payload = TrainingPayload.model_validate_json(arguments.payload.read_bytes())
    job = Job(
        run_id=arguments.run,
        dataset_name=f"Dataset{payload.dataset_id:03d}_{arguments.name}",
        payload=payload,
        profile=PROFILES[arguments.profile],
        seed=arguments.seed,
    )
    sites = dict(arguments.site)
    if len(sites) < len(arguments.site):
        raise SystemExit("--site: a site is named twice; it takes part with one data set")
    started = time.monotonic()

    def tell(event: Json) -> None:
        sys.stdout.write(json.dumps({"at_s": round(time.monotonic() - started, 2), **event}) + "\n")
        sys.stdout.flush()

    with LocalSites(sites, arguments.work, job, arguments.minimum_cases) as local:
        outcome = federate(local, job, FolderStore(arguments.work / "hub"), tell)
    tell({"kind": "finished", "archive": str(outcome.archive), "plan": outcome.plan_digest})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flip_nnunet.local", description="A federation on one machine.")
    parser.add_argument("--site", action="append", required=True, type=_site, metavar="NAME=FOLDER")
    parser.add_argument("--payload", required=True, type=Path, help="the training payload, a JSON file")
    parser.add_argument("--work", required=True, type=Path, help="where everything is written")
    parser.add_argument("--run", default="local", help="the run's id; the same again goes on from its state")
    parser.add_argument("--name", default="federated", help="the name in DatasetXYZ_name of plan and results")
    parser.add_argument("--profile", default="demo", choices=sorted(PROFILES))
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--minimum-cases", default=10, type=int, help="a site with fewer takes no part")
    return parser.parse_args()


def _site(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


if __name__ == "__main__":
    main()
