"""The projects service: projects, each Trust's decision, models."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.service import backbone, run

from flip_projects import api, consumers
from flip_projects.settings import ProjectsSettings

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = ("project", "model", "saved_query", "query_answer", "trust_images", "trained_model")


@asynccontextmanager
async def service(settings: ProjectsSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    async with backbone(settings, MIGRATIONS, consumers.handlers, PROJECTED) as stands:
        yield stands.http(api.projects, api.models)


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, ProjectsSettings())  # pyright: ignore[reportCallIssue]
