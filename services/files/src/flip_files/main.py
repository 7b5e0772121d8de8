"""The files service: what runs leave and the files of models, given to those who may have them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run

from flip_files import api, consumers, model_files, rounds
from flip_files.clamd import Clamd
from flip_files.objects import Objects
from flip_files.scanner import Scanner
from flip_files.settings import FilesSettings
from flip_files.thinning import Thinner

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = ("bundle", "result", "round", "run_attempt", "run_end", "needed_round", "known_model", "model_file")


@asynccontextmanager
async def service(settings: FilesSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    objects = Objects(settings)
    clamd = Clamd(settings.clamd_host, settings.clamd_port)
    async with (
        backbone(settings, MIGRATIONS, consumers.handlers, PROJECTED) as stands,
        background(Scanner(stands, objects, clamd).run(), "scanner"),
        background(Thinner(stands, objects, settings.rounds_kept_for).run(), "thinner"),
    ):
        app = stands.http(api.router, rounds.router, model_files.router)
        app.state.objects = objects
        app.state.rounds_kept_for = settings.rounds_kept_for
        app.state.uploads = model_files.Uploads(objects, settings)
        yield app


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, FilesSettings())  # pyright: ignore[reportCallIssue]
