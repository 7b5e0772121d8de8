"""The dispatcher over a real database, under random orders of what it may hear."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import pytest
from flip_chassis.database import CHASSIS_MIGRATIONS, Connection, connect, migrate
from flip_chassis.handlers import Handlers
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause
from flip_chassis.refusal import NotFound, Refused
from flip_chassis.testing import settings_for
from flip_chassis.work import Work
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import Resources, RunQueued
from flip_contracts.trainer_node import AttemptEnded, NetFree, NetHeartbeat, ResultsCollected
from flip_local.testing import Database, Kafka
from flip_scheduler import consumers, domain, store
from flip_scheduler.dispatch import Dispatcher
from flip_scheduler.main import MIGRATIONS
from flip_scheduler.matching import pair
from flip_scheduler.settings import SchedulerSettings

pytestmark = pytest.mark.parts

Outcome = Literal["interrupted", "failed"]
TRUSTS = frozenset({"KCH", "UCLH"})
NETS = ("net1", "net2", "net3")
STEPS = 60


class Walk:
    """A scheduler, its nets as they see themselves, and a clock that the walk moves."""

    def __init__(self, db: Connection, settings: SchedulerSettings, choose: random.Random) -> None:
        self.db = db
        self.choose = choose
        self.dispatcher = Dispatcher(settings)
        self.settings = settings
        self.project = Handlers(settings, consumers.handlers(self.dispatcher)).project
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.runs: list[RunId] = []

    def work(self) -> Work:
        cause = Cause(actor="service:test", time=self.now, correlation_id=uuid7())
        return Work(self.settings, self.db, cause, self.project)

    async def state(self, run_id: RunId) -> domain.Run:
        async with self.work().on(domain.RUNS, run_id) as run:
            return run.state

    async def step(self) -> None:
        move = self.choose.choice(
            ["queue", "queue", "free", "free", "beat", "end", "collect", "stop", "wait", "stale", "admin"]
        )
        run_id = self.choose.choice(self.runs) if self.runs else None
        self.now += timedelta(seconds=1)
        match move:
            case "queue":
                await self.queue()
            case "free":
                await self.free(self.choose.choice(NETS))
            case "beat":
                await self.beat(self.choose.choice(NETS))
            case "admin":
                await self.decide()
            case "wait":
                self.now += timedelta(seconds=self.choose.choice([5, 90]))
                await self.dispatcher.lose_silent_nets(self.work())
            case _ if run_id is not None:
                await self.about_run(move, run_id, await self.state(run_id))
            case _:
                pass

    async def queue(self) -> None:
        run_id = RunId(uuid7())
        project = ProjectId(UUID(int=self.choose.randrange(1, 4)))
        self.runs.append(run_id)
        chosen = {"framework": "nvflare", "job": "nnunet", "trusts": TRUSTS, "payload": {"mode": "app"}}
        queued = RunQueued(
            run_id=run_id,
            project_id=project,
            model_id=ModelId(uuid7()),
            minimum_trusts=self.choose.choice([None, 1, 2]),
            resources=Resources(gpus=self.choose.choice([0, 0, 1])),
            **chosen,
        )
        await self.dispatcher.queue(self.work(), queued)

    async def decide(self) -> None:
        """What an admin may do at any time."""
        match self.choose.choice(["drain", "undrain", "undrain", "weigh", "prioritise", "retire", "retire"]):
            case "weigh":
                project = ProjectId(UUID(int=self.choose.randrange(1, 4)))
                await self.dispatcher.weigh(self.work(), project, self.choose.randrange(1, 5), "fair")
            case "prioritise":
                for run in (await store.waiting(self.db, self.now))[:1]:
                    await self.dispatcher.prioritise(self.work(), run.run_id, self.choose.randrange(10), "urgent")
            case "retire":
                await self.retire(self.choose.choice(NETS))
            case what:
                net = self.choose.choice(NETS)
                await self.dispatcher.drain(self.work(), net, draining=what == "drain", reason="disks")

    async def retire(self, net: str) -> None:
        """Refused where the net has a run or could be given one, and where there is no such net."""
        known = {each["net"]: each for each in await store.nets(self.db, self.now)}.get(net)
        try:
            await self.dispatcher.retire(self.work(), net, "it lost its database")
        except (Refused, NotFound):
            assert known is None or known["state"] == "held" or (known["state"] == "free" and not known["draining"])
        else:
            assert known is not None
            assert known["run_id"] is None
            assert await store.net(self.db, net) is None

    def connected(self) -> frozenset[str]:
        return self.choose.choice([TRUSTS, TRUSTS, frozenset({"KCH"}), frozenset()])

    async def free(self, net: str) -> None:
        """The net has done with its last assignment, or has not heard of it yet."""
        known = await store.net(self.db, net)
        fencing = self.choose.choice([known["fencing"], known["fencing"] - 1]) if known else 0
        has = {"KCH": Resources(gpus=self.choose.choice([0, 1]))}
        free = NetFree(net=net, framework="nvflare", trusts=self.connected(), fencing=max(fencing, 0), resources=has)
        if known and known["run_id"] and fencing == known["fencing"]:
            await self.about_run("end", known["run_id"], await self.state(known["run_id"]))
        await self.dispatcher.hear_free_net(self.work(), free)
        if known and free.fencing < known["fencing"]:
            assert await store.net(self.db, net) == known

    async def beat(self, net: str) -> None:
        known = await store.net(self.db, net)
        fencing = known["fencing"] if known else None
        state = "running" if known and known["run_id"] else "free"
        await self.dispatcher.hear_heartbeat(
            self.work(), NetHeartbeat(net=net, state=state, trusts=self.connected(), fencing=fencing)
        )

    async def about_run(self, move: str, run_id: RunId, run: domain.Run) -> None:
        common = {"run_id": run_id, "project_id": run.queued.project_id if run.queued else None}
        match move:
            case "stop" if run.status in {"queued", "assigned"}:
                await self.dispatcher.stop(self.work(), run_id)
            case "end" | "stale" if run.attempt:
                old = 1 if move == "stale" else 0
                outcome: Outcome = self.choose.choice(["interrupted", "interrupted", "failed"])
                ended = AttemptEnded(
                    **common, attempt=run.attempt - old, fencing=run.fencing - old, outcome=outcome, reason="site-gone"
                )
                await self.dispatcher.hear_end_of_attempt(self.work(), ended)
                if old:
                    assert await self.state(run_id) == run
            case "collect" if run.attempt:
                stored = {"object": "o", "name": "n", "digest": "a" * 64, "size_bytes": 1}
                collected = ResultsCollected(**common, attempt=run.attempt, fencing=run.fencing, **stored)
                await self.dispatcher.hear_results_collected(self.work(), collected)
            case _:
                pass

    async def draining(self) -> dict[str, int]:
        """The last assignment of each net that drains: it gets no other."""
        return {net["net"]: net["fencing"] for net in await store.nets(self.db, self.now) if net["draining"]}

    async def check(self) -> None:
        """No net has two runs, no run two nets, none is lost, and what can run does."""
        nets = await store.nets(self.db, self.now)
        held = [net["run_id"] for net in nets if net["run_id"] is not None]
        assert len(held) == len(set(held))
        states = {run_id: await self.state(run_id) for run_id in self.runs}
        for net in nets:
            if net["run_id"] is not None:
                run = states[net["run_id"]]
                assert (run.net, run.fencing, run.is_held) == (net["net"], net["fencing"], True)
        waiting = {run.run_id for run in await store.waiting(self.db, self.now)}
        assert waiting == {run_id for run_id, run in states.items() if run.status == "queued"}
        for run_id, run in states.items():
            row = await store.run(self.db, run_id)
            assert row is not None
            assert (row["status"], row["attempt"], row["fencing"]) == (run.status, run.attempt, run.fencing)
            assert row["priority"] == run.priority
            if row["taking_part"] is not None:
                assert set(row["taking_part"]) <= TRUSTS
                assert len(row["taking_part"]) >= (row["minimum_trusts"] or len(TRUSTS))
        queue = await self.dispatcher.queue_in_order(self.db, self.now)
        assert pair(queue, await store.catalogue(self.db, self.now)) is None
        fencings = [run.fencing for run in states.values() if run.fencing]
        assert len(fencings) == len(set(fencings))


@pytest.fixture
async def walk(postgres: Database, kafka: Kafka) -> AsyncIterator[Walk]:
    principal = kafka.as_principal("service.scheduler")
    # Without rests, what can run does so with what is heard; one that has rested waits for a free net's next sign.
    settings = settings_for(SchedulerSettings, postgres, principal, "scheduler.walk", pause=timedelta())
    await migrate(settings, [CHASSIS_MIGRATIONS, MIGRATIONS])
    async with connect(postgres.app) as db:
        yield Walk(db, settings, random.Random())


@pytest.mark.requirement("RUN-2")
@pytest.mark.requirement("RUN-3")
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_heard_in_whatever_order_no_net_has_two_runs_and_no_run_is_lost(
    walk: Walk, seed: int
) -> None:
    walk.choose.seed(seed)
    for _ in range(STEPS):
        before = await walk.draining()
        await walk.step()
        after = await walk.draining()
        assert all(after[net] == before[net] for net in before.keys() & after.keys())
        await walk.check()
    assert any([(await walk.state(run_id)).attempt for run_id in walk.runs])
