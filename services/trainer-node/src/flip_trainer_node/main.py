"""A net, in two roles: its controller at the hub, its worker at a Trust."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.service import backbone, run

from flip_trainer_node import commands, hearing
from flip_trainer_node.controller import Controller
from flip_trainer_node.driver import Driver
from flip_trainer_node.objects import Objects
from flip_trainer_node.processes import Kept, environment
from flip_trainer_node.settings import ControllerSettings, Role, WorkerSettings
from flip_trainer_node.worker import Worker

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = ("attempt",)


@asynccontextmanager
async def controller(settings: ControllerSettings) -> AsyncGenerator[FastAPI]:
    """A net's controller: FLARE's server, the driver, and what carries runs through."""
    python, work, logs = str(settings.flare_python), settings.work.absolute(), settings.work / "logs"
    server = Kept(
        "FLARE server",
        (python, "-m", "flip_flare.server", "--kit", str(settings.flare_kit)),
        environment(),
        logs / "server.log",
    )
    driver = Driver(
        (
            *(python, "-m", "flip_flare.driver"),
            *("--admin-kit", str(settings.flare_admin_kit)),
            *("--jobs", str(work / "jobs")),
        ),
        environment(),
        logs / "driver.log",
    )
    async with backbone(settings, MIGRATIONS / "controller", hearing.handlers(settings.net), PROJECTED) as stands:
        net = Controller(settings, stands, driver, Objects(settings))
        async with (
            driver,
            background(server.keep(), "server"),
            background(net.run(), "controller"),
            background(net.beat(), "heartbeat"),
        ):
            yield stands.http(checks={"flare": net.answers})


@asynccontextmanager
async def worker(settings: WorkerSettings) -> AsyncGenerator[FastAPI]:
    """A net's worker: FLARE's client, and what prepares and ends runs."""
    work = settings.work.absolute()
    async with backbone(settings, MIGRATIONS / "worker", commands.handlers(settings.net)) as stands:
        trust = Worker(settings, stands)
        client = Kept(
            "FLARE client",
            (
                *(str(settings.flare_python), "-m", "flip_flare.client"),
                *("--kit", str(settings.flare_kit)),
                *("--site", settings.site),
            ),
            environment(FLIP_FLARE_RUNS=str(settings.runs), FLIP_FLARE_MINIMUM_CASES=str(settings.minimum_cases)),
            work / "logs" / "client.log",
            trust.say_started,
        )
        async with background(client.keep(), "client"), background(trust.run(), "worker"):
            yield stands.http()


def main() -> None:
    """Run the role that `FLIP_ROLE` names until told to stop."""
    match Role().role:  # pyright: ignore[reportCallIssue]
        case "controller":
            run(controller, ControllerSettings())  # pyright: ignore[reportCallIssue]
        case "worker":
            run(worker, WorkerSettings())  # pyright: ignore[reportCallIssue]
