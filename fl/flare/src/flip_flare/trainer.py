"""A Trust's answers to the hub's operations in one run."""

from __future__ import annotations

import nvflare.client as flare
from flip_apps.site import App, Place
from flip_apps.workers import Answering, make_worker
from flip_nnunet.site_settings import SiteSettings

from flip_flare.wire import read_request, reply_model


def serve(run_id: str, settings: SiteSettings, site: str) -> None:
    """Answer one operation after the other, until FLARE ends the job."""
    worker: Answering | None = None
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        request = read_request(model)
        worker = worker or make_worker(run_id, settings, site, request.job, load_app)
        flare.send(reply_model(worker.handle(request.operation, request.message)))


def load_app(place: Place) -> App:
    """Load a researcher's NVFLARE app."""
    from flip_flare.app import NvflareApp  # noqa: PLC0415 - only for jobs of this kind

    return NvflareApp(place)
