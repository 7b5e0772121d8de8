"""A Trust's answers to the hub's operations in one run."""

from __future__ import annotations

import nvflare.client as flare
from flip_apps.site import App, Place
from flip_apps.workers import operations_in_run
from flip_nnunet.operations import Operations
from flip_nnunet.site_settings import SiteSettings

from flip_flare.wire import read_request, reply_model


def serve(run_id: str, settings: SiteSettings, site: str) -> None:
    """Answer one operation after the other, until FLARE ends the job."""
    here: Operations | None = None
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        request = read_request(model)
        here = here or operations_in_run(site, run_id, settings, request.job, load_app)
        flare.send(reply_model(here.handle(request.operation, request.message)))


def load_app(place: Place) -> App:
    """Load a researcher's NVFLARE app."""
    from flip_flare.app import NvflareApp  # noqa: PLC0415 - only for jobs of this kind

    return NvflareApp(place)
