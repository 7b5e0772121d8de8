"""A hub that a crash ends, in a process of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flip_nnunet.federation import federate
from flip_nnunet.job import Job
from flip_nnunet.local import LocalSites
from flip_nnunet.message import Json
from flip_nnunet.store import FolderStore


def train_until_killed(data: dict[str, Path], work: Path, job: Job) -> None:
    """Train, and be killed right after the last round, before the results are begun."""

    def crash(event: Json) -> None:
        if event["kind"] == "round-complete" and event["round"] == job.payload.num_rounds - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with LocalSites(data, work, job, minimum_cases=3) as sites:
        federate(sites, job, FolderStore(work / "hub"), crash)
