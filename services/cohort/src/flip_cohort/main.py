"""The cohort service: queries and answers at the hub; the guarded query and the frozen cohort at a Trust."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run

from flip_cohort import api, hub_consumers, trust_consumers, trust_store
from flip_cohort.disclosure import Rules
from flip_cohort.runner import Runner
from flip_cohort.settings import HubSettings, TrustSettings

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED_AT_HUB = ("query_version", "query_answer", "staged_query", "cohort")
PROJECTED_AT_TRUST = ("query",)


@asynccontextmanager
async def hub(settings: HubSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of at the hub."""
    async with backbone(settings, MIGRATIONS / "hub", hub_consumers.handlers, PROJECTED_AT_HUB) as stands:
        yield stands.http(api.router)


@asynccontextmanager
async def trust(settings: TrustSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of at a Trust."""
    async with backbone(settings, MIGRATIONS / "trust", trust_consumers.handlers, PROJECTED_AT_TRUST) as stands:
        async with stands.pool.acquire() as db:
            secret = await trust_store.disclosure_secret(db)
        rules = Rules(secret, settings.disclosure_threshold, settings.disclosure_rounding)
        runner = Runner(stands, settings, rules)
        async with background(runner.work_off(), "jobs"):
            yield stands.http()


def main() -> None:
    """Run the service in the role that FLIP_ROLE names, `hub` or `trust`, until it is told to stop."""
    if os.environ.get("FLIP_ROLE") == "trust":
        run(trust, TrustSettings())  # pyright: ignore[reportCallIssue]
    else:
        run(hub, HubSettings())  # pyright: ignore[reportCallIssue]
