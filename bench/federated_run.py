"""Trains one job for `bench.federated`, in the trainer environment of a framework, and prints its rounds as JSON.

    python bench/federated_run.py local|flare|flower SPECIFICATION

The specification is a JSON file: `job` (a `flip_nnunet.job.Job`), `data` (the folder of each site's data) and `work`.
"""

import importlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flip_nnunet.federation import federate
from flip_nnunet.job import Job
from flip_nnunet.local import LocalSites
from flip_nnunet.store import FolderStore

Events = list[dict[str, Any]]


def train_locally(job: dict[str, Any], data: dict[str, Path], work: Path) -> Events:
    """Over the local harness: a process a site, nothing in between."""
    asked, events = Job.model_validate(job), list[dict[str, Any]]()
    with LocalSites(data, work, asked, minimum_cases=1) as sites:
        federate(sites, asked, FolderStore(work / "hub"), events.append)
    return events


def train_on_a_net(package: str, job: dict[str, Any], data: dict[str, Path], work: Path) -> Events:
    """Over a net of the framework on this machine, as the platform runs it."""
    with importlib.import_module(f"{package}.testing").LocalNet(work) as net:
        net.start_all()
        for site, folder in data.items():
            prepared = shutil.copytree(folder, net.runs / site / job["run_id"])
            (prepared / "prepared.json").write_text(json.dumps({"project_id": "bench"}))
        state = net.wait_for_end(net.submit(job))
        events: Events = net.events(job["run_id"])
    if events[-1]["kind"] != "finished":
        raise SystemExit(f"{state}: {events[-1]}")
    return events


def rounds(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each round's seconds at the hub, what its slowest site trained of them, and the digest of what came of it."""
    return [
        {
            "seconds": event["seconds"],
            "trained": max(site["seconds"] for site in event["sites"].values()),
            "digest": event["digest"],
        }
        for event in events
        if event["kind"] == "round-complete"
    ]


def main() -> None:
    contender, file = sys.argv[1:]
    specification = json.loads(Path(file).read_bytes())
    job, work = specification["job"], Path(specification["work"])
    data = {site: Path(folder) for site, folder in specification["data"].items()}
    work.mkdir(parents=True)
    if contender == "local":
        events = train_locally(job, data, work)
    else:
        events = train_on_a_net(f"flip_{contender}", job, data, work)
    json.dump(rounds(events), sys.stdout)


if __name__ == "__main__":
    main()
