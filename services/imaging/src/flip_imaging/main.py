"""What is wired to what, in each role."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run
from pydantic import SecretStr

from flip_imaging import api, operator_api
from flip_imaging.archive import OrthancArchive
from flip_imaging.consumers import hub_handlers, trust_handlers
from flip_imaging.dicomweb import DicomWebServer, silence_libraries
from flip_imaging.folders import Folders
from flip_imaging.frozen import FrozenCohort
from flip_imaging.importer import Importer
from flip_imaging.pacs import DicomWebPacs
from flip_imaging.settings import ImagingSettings, TrustImagingSettings
from flip_imaging.trust import TrustSide
from flip_imaging.workshop import workshop

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED_AT_HUB = ("trust_imaging", "net_at_trust")
PROJECTED_AT_TRUST = ("imaging_project", "study", "dataset")


@asynccontextmanager
async def hub(settings: ImagingSettings) -> AsyncGenerator[FastAPI]:
    """The hub's role: asks each Trust for its images, and knows how far it has come."""
    async with backbone(settings, MIGRATIONS / "hub", hub_handlers, PROJECTED_AT_HUB) as stands:
        yield stands.http(api.router)


@asynccontextmanager
async def trust(settings: TrustImagingSettings) -> AsyncGenerator[FastAPI]:
    """A Trust's role: brings images from the PACS into the archive, and labels to them."""
    silence_libraries()
    trust_key = settings.pseudonym_key_file.read_bytes()
    cohort = FrozenCohort(settings.frozen_cohort.get_secret_value())
    handlers = trust_handlers(cohort, trust_key, settings.disclosure_threshold)
    with workshop(settings.imports_at_once, settings.transfer_s) as shop:
        async with backbone(settings, MIGRATIONS / "trust", handlers, PROJECTED_AT_TRUST) as stands:
            side = TrustSide(
                stands,
                settings,
                pacs=DicomWebPacs(_server(settings, settings.pacs_url, settings.pacs_user, settings.pacs_password)),
                archive=OrthancArchive(
                    _server(settings, settings.archive_url, settings.archive_user, settings.archive_password)
                ),
                workshop=shop,
                folders=Folders(settings.data),
                trust_key=trust_key,
            )
            app = stands.http(operator_api.router)
            app.state.side = side
            async with background(Importer(side).run(), "importer"):
                yield app


def _server(settings: TrustImagingSettings, url: str, user: str, password: SecretStr) -> DicomWebServer:
    return DicomWebServer(
        url, user, password.get_secret_value(), settings.dicom_ca_file, transfer_s=settings.transfer_s
    )


def main() -> None:
    """Run the role that `FLIP_ROLE` names."""
    if os.environ.get("FLIP_ROLE") == "trust":
        run(trust, TrustImagingSettings())  # pyright: ignore[reportCallIssue] - filled from the environment
    else:
        run(hub, ImagingSettings())  # pyright: ignore[reportCallIssue] - filled from the environment
