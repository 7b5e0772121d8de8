"""What does a site's part in a run, whichever kind of job it is."""

from __future__ import annotations

from typing import Protocol

from flip_nnunet.job import Job
from flip_nnunet.message import Json, Message
from flip_nnunet.site_settings import SiteSettings

from flip_apps.job import AppJob, is_app
from flip_apps.site import AppWorker, Load


class Answering(Protocol):
    """What does a site's part in a run."""

    def handle(self, operation: str, message: Message) -> Message:
        """The answer to one operation; a failure is an answer, too."""
        ...


def make_worker(run_id: str, settings: SiteSettings, site: str, record: Json, load: Load) -> Answering:
    """The worker for a job's record; `load` is how the framework loads an app.

    Raises ValueError if the job is malformed or of another run than the trainer's.
    """
    job = AppJob.model_validate(record) if is_app(record) else Job.model_validate(record)
    if job.run_id != run_id:
        raise ValueError(f"run_id: the job is of run {job.run_id}, the trainer was started for {run_id}")
    if isinstance(job, AppJob):
        return AppWorker(site, settings.data(run_id), settings.work, job, settings.minimum_cases, load)
    from flip_nnunet.worker import Worker  # noqa: PLC0415 - imports nnU-Net for seconds, of which an app has no use

    return Worker(site, settings.data(run_id), settings.work, job, settings.minimum_cases)
