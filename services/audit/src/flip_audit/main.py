"""The audit service: the ledger of everything said."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.service import backbone, run

from flip_audit import api, consumers
from flip_audit.settings import AuditSettings

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def service(settings: AuditSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    async with backbone(settings, MIGRATIONS, consumers.handlers) as stands:
        yield stands.http(api.router)


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, AuditSettings())  # pyright: ignore[reportCallIssue]
