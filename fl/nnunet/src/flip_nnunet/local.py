"""A whole federation on one machine, without any FL framework: one spawned process a site.

    python -m flip_nnunet.local --site KCH=FOLDER --site UCLH=FOLDER --payload FILE --work FOLDER

Each site's folder holds `nnUNet_raw/DatasetXYZ_name`. The payload is one of a training or of a prediction. Events are
printed as JSON, one a line; the results lie in `WORK/hub/results`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from flip_nnunet.conduct import run
from flip_nnunet.job import AnyJob, read_job
from flip_nnunet.message import NO_ANSWER, Answers, Json, Message, SiteFailure
from flip_nnunet.payload import PROFILES
from flip_nnunet.site_settings import CAUTIOUS, Predictions
from flip_nnunet.store import FolderStore

_END_S = 10.0


class LocalSites:
    """`federation.Sites` over processes of this machine; the site `NAME` works in `work/sites/NAME`."""

    def __init__(
        self,
        data: Mapping[str, Path],
        work: Path,
        job: AnyJob,
        minimum_cases: int,
        predictions: Predictions = CAUTIOUS,
        models: Path | None = None,
    ) -> None:
        self._data = dict(data)
        self._work = work
        self._job = job
        self._minimum_cases = minimum_cases
        self._predictions: Predictions = predictions
        self._models = models
        self._processes: dict[str, tuple[BaseProcess, Connection]] = {}

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        for site, data in self._data.items():
            ours, theirs = spawn.Pipe()
            lets_out = (self._minimum_cases, self._predictions, self._models)
            arguments = (theirs, self._job, site, data, self._work / "sites" / site, *lets_out)
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


def _serve(connection: Connection, job: AnyJob, name: str, *site: Any) -> None:
    """A site's process: answers until the hub closes the connection."""
    from flip_nnunet.site import Site  # noqa: PLC0415 - the hub's process has no use for nnU-Net's trainer

    logging.basicConfig(level=logging.WARNING, format=f"{name} %(levelname)s %(name)s %(message)s")
    worker = Site(name, *site).operations(job)
    while True:
        try:
            operation = connection.recv_bytes().decode()
            message = Message.from_bytes(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(worker.handle(operation, message).to_bytes())


def main() -> None:
    arguments = _arguments()
    job = read_job(_record(arguments))
    sites = dict(arguments.site)
    if len(sites) < len(arguments.site):
        raise SystemExit("--site: a site is named twice; it takes part with one data set")
    started = time.monotonic()

    def tell(event: Json) -> None:
        sys.stdout.write(json.dumps({"at_s": round(time.monotonic() - started, 2), **event}) + "\n")
        sys.stdout.flush()

    hub = arguments.work / "hub"
    if arguments.results is not None:
        hub.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(arguments.results, hub / "earlier.zip")
    lets_out = (arguments.minimum_cases, arguments.predictions, arguments.models)
    with LocalSites(sites, arguments.work, job, *lets_out) as local:
        outcome = run(local, job, FolderStore(hub), tell)
    tell({"kind": "finished", **outcome.facts()})


def _record(arguments: argparse.Namespace) -> Json:
    """The job as JSON: the payload with what the command line says of the rest."""
    payload = json.loads(arguments.payload.read_bytes())
    record: Json = {"run_id": arguments.run, "payload": payload, "profile": PROFILES[arguments.profile].model_dump()}
    if payload.get("mode") != "inference":
        name = f"Dataset{int(payload['dataset_id']):03d}_{arguments.name}"
        record |= {"dataset_name": name, "seed": arguments.seed}
    return record


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flip_nnunet.local", description="A federation on one machine.")
    parser.add_argument("--site", action="append", required=True, type=_site, metavar="NAME=FOLDER")
    parser.add_argument("--payload", required=True, type=Path, help="the payload, a JSON file")
    parser.add_argument("--work", required=True, type=Path, help="where everything is written")
    parser.add_argument("--run", default="local", help="the run's id; the same again goes on from its state")
    parser.add_argument("--name", default="federated", help="the name in DatasetXYZ_name of plan and results")
    parser.add_argument("--profile", default="demo", choices=sorted(PROFILES))
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--minimum-cases", default=10, type=int, help="a site with fewer takes no part")
    parser.add_argument(
        "--predictions", default=CAUTIOUS, choices=get_args(Predictions), help="what sites give of them"
    )
    parser.add_argument("--models", type=Path, help="the folder in which a prediction's checkpoint_path lies")
    parser.add_argument("--results", type=Path, help="the zip of the earlier run that a checkpoint_path names")
    return parser.parse_args()


def _site(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


if __name__ == "__main__":
    main()
