"""How soon does a free net have the next run?"""

import asyncio
import time
from typing import ClassVar, TypeVar

from flip_chassis.database import Row
from flip_chassis.ids import uuid7
from flip_chassis.service import Backbone, backbone
from flip_chassis.settings import Settings
from flip_chassis.testing import settings_for
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import RunQueued
from flip_contracts.topics import NET, RUN, TRAINING
from flip_contracts.trainer_node import AttemptEnded, NetFree
from flip_local.testing import Database
from flip_scheduler import consumers
from flip_scheduler.dispatch import Dispatcher
from flip_scheduler.main import MIGRATIONS as SCHEDULER_MIGRATIONS
from flip_scheduler.main import PROJECTED as SCHEDULER_PROJECTED
from flip_scheduler.settings import SchedulerSettings
from flip_trainer_node import hearing
from flip_trainer_node.main import MIGRATIONS as NET_MIGRATIONS
from flip_trainer_node.main import PROJECTED as NET_PROJECTED

from bench.ground import Ground
from bench.measuring import Series, percentile
from bench.report import Chapter, Goal, Scale

S = TypeVar("S", bound=Settings)
_NET = "bench"
_PROJECT = ProjectId(uuid7())
_RUNS = 40
_PATIENCE_S = 60.0
_BETWEEN_LOOKS_S = 0.002
_TRUSTS = frozenset({"KCH", "UCLH"})


class Controlling(Settings):
    """The net's controller, as far as it hears what it is given."""

    service: ClassVar[str] = "trainer-node"


async def run(ground: Ground, scale: Scale) -> Chapter:
    """The net's word, the scheduler's choice, the controller's commit."""
    runs = scale.of(_RUNS)
    rounds = [await _waits(ground, runs) for _ in range(scale.rounds)]

    def series(percent: int) -> Series:
        name = f"one net, {runs} runs in turn"
        return Series(name, f"p{percent}", "ms", tuple(percentile(round_, percent) for round_ in rounds))

    p50, p99 = series(50), series(99)
    return Chapter(
        "From a free net to its next run",
        "From the return of the commit that says NetFree to that of the commit by which the net's controller has taken"
        " the next run of the queue and asked its Trusts to prepare it. The scheduler, the controller's hearing, their"
        " databases and Kafka are as in production.",
        (p50, p99),
        (Goal("NetFree to the start of the next run, p50", 200, p50.median, "ms", at_most=True),),
    )


async def _waits(ground: Ground, runs: int) -> list[float]:
    """The milliseconds that the net waits for each of its runs."""
    for topic in (RUN, NET, TRAINING):
        ground.empty(topic.name)
    with ground.postgres.database("scheduler") as scheduling, ground.postgres.database("net") as controlling:
        settings = _settings(ground, SchedulerSettings, scheduling)
        dispatcher = Dispatcher(settings)
        async with (
            backbone(settings, SCHEDULER_MIGRATIONS, consumers.handlers(dispatcher), SCHEDULER_PROJECTED) as scheduler,
            backbone(
                _settings(ground, Controlling, controlling),
                NET_MIGRATIONS / "controller",
                hearing.handlers(_NET),
                NET_PROJECTED,
            ) as net,
        ):
            for _ in range(runs):
                async with scheduler.working() as work:
                    await dispatcher.queue(work, _queued())
            return [await _wait(scheduler, net, number) for number in range(runs)]


def _settings(ground: Ground, kind: type[S], database: Database) -> S:
    principal = f"service.{kind.service}"
    return settings_for(kind, database, ground.kafka.as_principal(principal), ground.kafka.group(principal))


def _queued() -> RunQueued:
    return RunQueued(
        run_id=RunId(uuid7()),
        project_id=_PROJECT,
        model_id=ModelId(uuid7()),
        framework="nvflare",
        job="nnunet",
        trusts=_TRUSTS,
        payload={"mode": "training", "num_rounds": 1, "starting_fed_round": 0, "epochs_per_round": 1},
    )


async def _wait(scheduler: Backbone, net: Backbone, fencing: int) -> float:
    """The milliseconds until the net that has done with assignment `fencing` has the next one, which then fails."""
    async with net.working() as work:
        await work.say(NetFree(net=_NET, framework="nvflare", trusts=_TRUSTS, fencing=fencing))
    began = time.perf_counter()
    taken = await _seen(net, "SELECT * FROM attempt WHERE fencing = $1", fencing + 1)
    took_ms = 1000 * (time.perf_counter() - began)
    of_attempt = {"run_id": taken["run_id"], "attempt": taken["attempt"], "fencing": taken["fencing"]}
    async with net.working() as work:
        await work.say(AttemptEnded(**of_attempt, project_id=_PROJECT, outcome="failed", reason="sites-failed"))
    await _seen(scheduler, "SELECT * FROM net WHERE fencing = $1 AND run_id IS NULL", fencing + 1)
    return took_ms


async def _seen(service: Backbone, query: str, fencing: int) -> Row:
    """The first row that the query finds in the service's database."""
    async with asyncio.timeout(_PATIENCE_S), service.pool.acquire() as db:
        while True:
            row = await db.fetchrow(query, fencing)
            if row is not None:
                return row
            await asyncio.sleep(_BETWEEN_LOOKS_S)
