"""A Trust's answers to the hub's operations in one run."""

from __future__ import annotations

import nvflare.client as flare
from flip_nnunet.job import Job
from flip_nnunet.site_settings import SiteSettings
from flip_nnunet.worker import Worker

from flip_flare.wire import Request, read_request, reply_model


def serve(run_id: str, settings: SiteSettings, site: str) -> None:
    """Answer one operation after the other, until FLARE ends the job."""
    worker: Worker | None = None
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        request = read_request(model)
        worker = worker or make_worker(run_id, settings, site, request)
        flare.send(reply_model(worker.handle(request.operation, request.message)))


def make_worker(run_id: str, settings: SiteSettings, site: str, request: Request) -> Worker:
    """The worker of a job. Raises ValueError if the job is malformed or of another run than the trainer's."""
    job = Job.model_validate(request.job)
    if job.run_id != run_id:
        raise ValueError(f"run_id: the job is of run {job.run_id}, the trainer was started for {run_id}")
    return Worker(site, settings.data(run_id), settings.work(run_id), job, settings.minimum_cases)
