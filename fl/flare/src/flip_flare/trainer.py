"""A Trust's answers to the hub's operations in one run."""

from __future__ import annotations

from typing import Protocol

import nvflare.client as flare
from flip_apps.job import AppJob, is_app
from flip_nnunet.job import Job
from flip_nnunet.message import Message
from flip_nnunet.site_settings import SiteSettings

from flip_flare.wire import Request, read_request, reply_model


class Answering(Protocol):
    """What does a site's part in a run."""

    def handle(self, operation: str, message: Message) -> Message:
        """The answer to one operation; a failure is an answer, too."""
        ...


def serve(run_id: str, settings: SiteSettings, site: str) -> None:
    """Answer one operation after the other, until FLARE ends the job."""
    worker: Answering | None = None
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        request = read_request(model)
        worker = worker or make_worker(run_id, settings, site, request)
        flare.send(reply_model(worker.handle(request.operation, request.message)))


def make_worker(run_id: str, settings: SiteSettings, site: str, request: Request) -> Answering:
    """The worker of a job. Raises ValueError if the job is malformed or of another run than the trainer's.

    Each kind of job is imported when it is asked for: nnU-Net takes seconds, and an app needs none of it.
    """
    job = AppJob.model_validate(request.job) if is_app(request.job) else Job.model_validate(request.job)
    if job.run_id != run_id:
        raise ValueError(f"run_id: the job is of run {job.run_id}, the trainer was started for {run_id}")
    if isinstance(job, AppJob):
        from flip_apps.site import AppWorker  # noqa: PLC0415

        from flip_flare.app import NvflareApp  # noqa: PLC0415

        return AppWorker(site, settings.data(run_id), settings.work, job, settings.minimum_cases, NvflareApp)
    from flip_nnunet.worker import Worker  # noqa: PLC0415

    return Worker(site, settings.data(run_id), settings.work, job, settings.minimum_cases)
