"""What does a site's part in a run, whichever kind of job it is."""

from __future__ import annotations

from pathlib import Path

import flip
import flip_contracts
from flip_nnunet.attempt import check_run
from flip_nnunet.message import Json
from flip_nnunet.operations import Operations
from flip_nnunet.site_settings import SiteSettings

import flip_apps
from flip_apps.job import AppJob, is_app
from flip_apps.site import AppWorker, Load

CODE = tuple(Path(package.__path__[0]).resolve() for package in (flip, flip_apps, flip_contracts))
"""Where the packages lie that a box needs for an app, beside those of nnU-Net and of the framework."""


def operations_in_run(site: str, run_id: str, settings: SiteSettings, record: Json, load: Load) -> Operations:
    """The site of a run whose job came as `record`; `load` is how the framework loads an app.

    In a pod, which hides neither the kit nor other projects' runs, the site refuses every app (docs/sandbox.md).
    Raises ValueError if the job is malformed or of another run than that for which the trainer was started.
    """
    if is_app(record):
        job = AppJob.model_validate(record)
        check_run(job.run_id, run_id)
        data, work, boxed = settings.data(run_id), settings.work(run_id), settings.sandbox.kind != "pod"
        return AppWorker(site, data, work, job, settings.minimum_cases, load, boxed=boxed)
    from flip_nnunet.site import site_in_run  # noqa: PLC0415 - imports nnU-Net for seconds, of which an app has no use

    return site_in_run(site, run_id, settings, record)
