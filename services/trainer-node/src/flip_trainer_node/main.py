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
    """A net's controller: the framework's server, the driver, and what carries runs through."""
    runtime, python = settings.runtime, str(settings.trainer_python)
    work, logs = settings.work.absolute(), settings.work / "logs"
    server = Kept(
        f"{runtime.name} server",
        (python, *runtime.module("server"), "--kit", str(settings.kit)),
        environment(),
        logs / "server.log",
    )
    driver = Driver(
        (
            *(python, *runtime.module("driver")),
            *("--admin-kit", str(settings.admin_kit)),
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
            background(net.listen(), "notices"),
            background(net.run(), "controller"),
            background(net.beat(), "heartbeat"),
        ):
            yield stands.http(checks={settings.framework: net.answers})


@asynccontextmanager
async def worker(settings: WorkerSettings) -> AsyncGenerator[FastAPI]:
    """A net's worker: the framework's client, and what prepares and ends runs."""
    runtime, work = settings.runtime, settings.work.absolute()
    async with backbone(settings, MIGRATIONS / "worker", commands.handlers(settings.net)) as stands:
        trust = Worker(settings, stands)
        client = Kept(
            f"{runtime.name} client",
            (
                *(str(settings.trainer_python), *runtime.module("client")),
                *("--kit", str(settings.kit)),
                *("--site", settings.site),
            ),
            environment(**settings.site_environment),
            work / "logs" / "client.log",
            trust.say_started,
        )
        async with (
            background(client.keep(), "client"),
            background(trust.listen(), "notices"),
            background(trust.run(), "worker"),
        ):
            yield stands.http()


def main() -> None:
    """Run the role that `FLIP_ROLE` names until told to stop."""
    match Role().role:  # pyright: ignore[reportCallIssue]
        case "controller":
            run(controller, ControllerSettings())  # pyright: ignore[reportCallIssue]
        case "worker":
            run(worker, WorkerSettings())  # pyright: ignore[reportCallIssue]
