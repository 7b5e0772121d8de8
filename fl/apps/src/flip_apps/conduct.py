"""Conducts one attempt at a run of an app at the hub, and tells how it goes by the same lines as an nnU-Net run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from flip_nnunet.attempt import Attempt
from flip_nnunet.conduct import report
from flip_nnunet.federation import Sites, Tell
from flip_nnunet.store import FolderStore

from flip_apps.federation import federate_app
from flip_apps.files import read_files
from flip_apps.job import AppJob


def conduct_app(attempt: Attempt, sites_for: Callable[[AppJob], Sites], silent: Collection[str]) -> None:
    """As `flip_nnunet.conduct.conduct`. The app's files lie in `<run_folder>/app/`."""

    def work(tell: Tell) -> dict[str, Any]:
        job = AppJob.model_validate(attempt.job)
        files = read_files(attempt.run_folder, job)
        return federate_app(sites_for(job), job, files, FolderStore(attempt.run_folder), tell).facts()

    report(attempt, work, silent)
