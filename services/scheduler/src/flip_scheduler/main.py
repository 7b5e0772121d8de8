"""The scheduler: the only service that decides what runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run

from flip_scheduler import api, consumers
from flip_scheduler.dispatch import Dispatcher, watch_leases
from flip_scheduler.live import LiveFeed
from flip_scheduler.settings import SchedulerSettings
from flip_scheduler.sheets import Sheets

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = (
    *("known_model", "enrichment", "images", "model_file", "frozen_query"),
    *("run", "run_round", "run_news", "run_metric"),
    *("project_weight", "draining_net"),
)


@asynccontextmanager
async def service(settings: SchedulerSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    dispatcher = Dispatcher(settings)
    async with backbone(settings, MIGRATIONS, consumers.handlers(dispatcher), PROJECTED) as stands:
        feed = LiveFeed(stands.pool)
        async with (
            background(watch_leases(stands, dispatcher), "leases"),
            background(feed.listen(settings.postgres.get_secret_value()), "live feed"),
        ):
            app = stands.http(api.router)
            app.state.dispatcher = dispatcher
            app.state.feed = feed
            app.state.sheets = Sheets(stands.pool)
            yield app


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, SchedulerSettings())  # pyright: ignore[reportCallIssue]
