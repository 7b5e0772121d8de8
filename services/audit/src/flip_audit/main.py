"""The audit service: the ledger of everything said."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run

from flip_audit import api, consumers
from flip_audit.checkpoints import Checkpoints
from flip_audit.domain import Pace
from flip_audit.exports import Exporter
from flip_audit.keys import SigningKey
from flip_audit.objects import Objects
from flip_audit.settings import AuditSettings

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = ("stored_checkpoint",)


@asynccontextmanager
async def service(settings: AuditSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    key = SigningKey.of(settings.signing_key)
    pace = Pace(settings.checkpoint_entries, timedelta(seconds=settings.checkpoint_s))
    async with backbone(settings, MIGRATIONS, consumers.handlers, PROJECTED) as stands:
        checkpoints = Checkpoints(stands, Objects(settings), key, pace)
        await checkpoints.introduce_key()
        async with background(checkpoints.run(), "checkpoints"):
            app = stands.http(api.router)
            app.state.exporter = Exporter(checkpoints)
            yield app


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, AuditSettings())  # pyright: ignore[reportCallIssue]
