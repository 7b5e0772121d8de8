"""One run: services write and hear while a schedule plays its faults; then the histories are read and judged."""

import asyncio
import multiprocessing
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import UUID

from flip_chassis.database import connect
from flip_chassis.inbox import unpack
from flip_local.testing import Database

from .history import Event, History, Violation, violations
from .mutants import Mutant
from .schedule import OF_REPLICAS, SERVICES, STORM_S, Death, Fault, Schedule
from .stage import Offsets, Stage
from .worker import DIED, UP, Life, live
from .world import HEARS, REACTIONS

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([live.__module__])

PATIENCE_S = 60.0
"""How long nothing may take effect before what is missing counts as lost; groups and clients need some seconds."""
LOOK_EVERY_S = 0.2
_LEAVING_S = 5.0
_START_S = 60.0
_DEATHS_S = 90.0


class Replica:
    """One replica of a service: whenever its process ends, the next one begins, as under any supervisor."""

    def __init__(self, run: "Run", service: str, number: int, deaths: Sequence[Death] = ()) -> None:
        self.service = service
        self.name = f"{service}/{number}"
        self.lives = 0
        self.broke: list[str] = []
        self.diary = run.folder / f"{service}-{number}.diary"
        self._run = run
        self._deaths = deque(deaths)
        self._process: BaseProcess | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._ended = asyncio.Event()

    async def keep(self) -> None:
        """Have a process while one is wanted; for ever."""
        while True:
            await self._wanted.wait()
            life = self._next_life()
            self._process = process = _PROCESSES.Process(target=live, args=(life,), name=self.name, daemon=True)
            self._ended.clear()
            process.start()
            await _end_of(process)
            self._ended.set()
            if process.exitcode not in (0, -signal.SIGKILL):
                self.broke.append(f"{self.name} ended with {process.exitcode}, see {life.log}")
                await asyncio.sleep(0.2)

    async def until_up(self) -> None:
        """Wait until the service stood once."""
        while UP not in _first_words(self.diary):  # noqa: ASYNC110 (another process writes it)
            await asyncio.sleep(LOOK_EVERY_S)

    async def until_life(self, number: int) -> None:
        """Wait until the process before this one has ended."""
        while self.lives < number:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(LOOK_EVERY_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, where there is one."""
        if self._process and self._process.pid and not self._ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def pause(self, for_s: float) -> None:
        """Stop the process and let it go on later, none the wiser."""
        self.signal(signal.SIGSTOP)
        await asyncio.sleep(for_s)
        self.signal(signal.SIGCONT)

    async def leave(self) -> None:
        """Leave in good order, and come back at once."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_S):
                await self._ended.wait()
                return
        self.signal(signal.SIGKILL)

    @asynccontextmanager
    async def away(self) -> AsyncGenerator[None]:
        """Have no process while the block lasts."""
        self._wanted.clear()
        await self.leave()
        await self._ended.wait()
        try:
            yield
        finally:
            self._wanted.set()

    def _next_life(self) -> Life:
        run, service, seed = self._run, self.service, self._run.schedule.seed
        self.lives += 1
        jumps = [fault.amount for fault in run.schedule.faults if (fault.kind, fault.target) == ("jump", self.name)]
        return Life(
            service=service,
            replica=self.name,
            number=self.lives,
            seed=seed,
            database=run.databases[service],
            principal=run.stage.principal(service),
            group=run.groups[service],
            diary=self.diary,
            log=run.folder / f"{self.name.replace('/', '-')}.log",
            calm=run.calm,
            death=self._deaths.popleft() if self._deaths else None,
            jump=timedelta(minutes=sum(jumps)),
            detours=run.stage.detours if run.schedule.has_network_faults else {},
            mutant=run.mutant,
        )


@dataclass(slots=True)
class Run:
    """The services of one run, on databases and consumer groups of their own."""

    stage: Stage
    schedule: Schedule
    folder: Path
    databases: dict[str, Database]
    groups: dict[str, str]
    begun: dict[str, Offsets]
    """Where each service's group has begun."""
    mutant: Mutant | None = None
    replicas: dict[str, Replica] = field(default_factory=dict[str, Replica])

    @property
    def calm(self) -> Path:
        """The file that tells writers to end."""
        return self.folder / "calm"

    @asynccontextmanager
    async def playing(self, *replicas: Replica) -> AsyncGenerator[None]:
        """Keep replicas while the block lasts; then kill them."""
        self.replicas |= {replica.name: replica for replica in replicas}
        tasks = [asyncio.create_task(replica.keep(), name=replica.name) for replica in replicas]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for replica in replicas:
                replica.signal(signal.SIGCONT)
                replica.signal(signal.SIGKILL)

    async def play(self, fault: Fault) -> None:
        """Let one fault happen, and mend what it has broken."""
        stage = self.stage
        if fault.kind in OF_REPLICAS:
            await self._play_on_replica(fault)
            return
        match fault.kind:
            case "repeat":
                async with AsyncExitStack() as away:
                    for replica in self._of(fault.target):
                        await away.enter_async_context(replica.away())
                    await self.set_back(fault.target, fault.amount)
            case "no-room":
                await stage.shut_out(fault.target)
                await asyncio.sleep(fault.for_s)
                await stage.let_in(fault.target)
            case "postgres-crash":
                await stage.crash_postgres()
            case "broker-kill":
                await stage.kill_broker()
            case "broker-restart":
                await stage.restart_broker()
            case _:
                await self._play_on_network(fault)

    async def set_back(self, service: str, share: float) -> None:
        """Have a service, none of whose replicas is there, hear again a share of what it has heard."""
        await self.stage.set_back(service, self.groups[service], self.begun[service], share)

    async def _play_on_replica(self, fault: Fault) -> None:
        replica = self.replicas[fault.target]
        match fault.kind:
            case "leave":
                await replica.leave()
            case "pause":
                await replica.pause(fault.for_s)
            case "jump":
                replica.signal(signal.SIGUSR1)
            case _:
                replica.signal(signal.SIGKILL)

    async def _play_on_network(self, fault: Fault) -> None:
        proxy = self.stage.proxies[fault.target]
        match fault.kind:
            case "slow":
                async with proxy.slow(fault.amount):
                    await asyncio.sleep(fault.for_s)
            case "freeze":
                async with proxy.frozen():
                    await asyncio.sleep(fault.for_s)
            case "refuse":
                async with proxy.refusing():
                    await asyncio.sleep(fault.for_s)
            case _:
                proxy.cut()

    def _of(self, service: str) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.service == service]

    # --- what has happened ----------------------------------------------------------------------------------------
    def not_reached(self) -> list[Death]:
        """The deaths that have not come."""
        died = {(line[1], line[2]) for line in self._diaries() if line[0] == DIED}
        return [death for death in self.schedule.deaths if (death.replica, death.point) not in died]

    async def every_death(self) -> None:
        """Wait until every replica has died all its deaths, or doesn't come to the next one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DEATHS_S):
                while self.not_reached():  # noqa: ASYNC110 (as above)
                    await asyncio.sleep(LOOK_EVERY_S)

    async def settled(self) -> bool:
        """Wait until all that was said took effect or waits for good; False where nothing has moved for long."""
        before: object = None
        moved = time.monotonic()
        while time.monotonic() - moved < PATIENCE_S:
            now = await self._unsettled()
            if not now:
                return True
            if now != before:
                before, moved = now, time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
        return False

    async def _unsettled(self) -> list[tuple[str, int, int]]:
        """For each consumer that isn't through: what it has dealt with, and of how much."""
        dealt = {service: await self._dealt_with(service) for service in SERVICES}
        said = {service: await self._said(service) for service in SERVICES}
        due = {
            service: sum(said[other].get(topic, 0) for other in SERVICES for topic in HEARS[service])
            for service in SERVICES
        }
        return [(service, dealt[service], due[service]) for service in SERVICES if dealt[service] < due[service]]

    async def _dealt_with(self, service: str) -> int:
        async with connect(self.databases[service].owner) as db:
            return await db.fetchval(
                "SELECT (SELECT count(DISTINCT event_id) FROM effect)"
                " + (SELECT count(*) FROM parked p WHERE EXISTS"
                "    (SELECT FROM parked q WHERE (q.topic, q.key) = (p.topic, p.key) AND q.kind = 'poison'))"
            )

    async def _said(self, service: str) -> dict[str, int]:
        async with connect(self.databases[service].owner) as db:
            rows = await db.fetch("SELECT topic, count(*) AS n FROM event_log GROUP BY topic")
        return {row["topic"]: row["n"] for row in rows}

    async def history(self) -> History:
        """All that the run has left behind."""
        diary = list(self._diaries())
        there = {replica.service for replica in self.replicas.values()}
        logged: list[Event] = []
        effects: dict[str, list[Event]] = {}
        parked: dict[str, list[Event]] = {}
        for service in SERVICES:
            async with connect(self.databases[service].owner) as db:
                logged += [
                    Event(row["id"], service, row["topic"], row["key"], row["stream_version"], row["causation_id"])
                    for row in await db.fetch("SELECT * FROM event_log ORDER BY pos")
                ]
                effects[service] = [
                    Event(row["event_id"], row["source"], row["topic"], row["key"], row["version"])
                    for row in await db.fetch("SELECT * FROM effect ORDER BY place")
                ]
                parked[service] = [_unparked(row) for row in await db.fetch("SELECT * FROM parked ORDER BY id")]
        earlier = frozenset(self.stage.earlier)
        self.stage.earlier.update(event.id for event in logged)
        return History(
            logged=logged,
            committed=[
                Event(UUID(id_), source, topic, key, int(version))
                for what, id_, source, topic, key, version in (line for line in diary if line[0] == "committed")
            ],
            undone=frozenset(UUID(line[1]) for line in diary if line[0] == "undone"),
            effects=effects,
            parked=parked,
            hears={service: HEARS[service] for service in there},
            reactions=[reaction for reaction in REACTIONS if reaction.service in there],
            earlier=earlier,
        )

    def _diaries(self) -> list[list[str]]:
        return [line.split() for path in sorted(self.folder.glob("*.diary")) for line in path.read_text().splitlines()]


def _unparked(row: object) -> Event:
    found: dict[str, object] = dict(row)  # type: ignore[call-overload]
    headers = [(name, bytes.fromhex(value)) for name, value in found["headers"]]  # type: ignore[union-attr]
    envelope = unpack(found["topic"], None, 0, 0, headers, found["value"]).envelope  # type: ignore[arg-type]
    assert envelope
    source = envelope.source.rpartition("/")[2]
    return Event(envelope.id, source, envelope.topic, envelope.key, envelope.stream_version)


@asynccontextmanager
async def opened(stage: Stage, schedule: Schedule, folder: Path, mutant: Mutant | None = None) -> AsyncGenerator[Run]:
    """A run with nobody in it yet."""
    await asyncio.to_thread(_emptied, folder)
    await stage.forget_records()
    async with stage.databases() as databases:
        groups = {service: stage.group(service) for service in SERVICES}
        begun = {service: await stage.begin(service, group) for service, group in groups.items()}
        yield Run(stage, schedule, folder, databases, groups, begun, mutant)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    schedule: Schedule
    violations: list[Violation]
    said: int
    effects: int
    parked: int
    lives: int
    broke: list[str]
    not_reached: list[Death]
    lasted_s: float


async def play(stage: Stage, schedule: Schedule, folder: Path) -> Outcome:
    """Play a schedule from its first event to its judgement."""
    started = time.monotonic()
    async with opened(stage, schedule, folder) as run:
        replicas = [
            Replica(run, service, number, schedule.deaths_of(f"{service}/{number}"))
            for service in SERVICES
            for number in range(schedule.replicas)
        ]
        async with run.playing(*replicas):
            async with asyncio.timeout(_START_S):
                await asyncio.gather(*(replica.until_up() for replica in replicas))
            async with asyncio.TaskGroup() as storm:
                storm.create_task(asyncio.sleep(STORM_S))
                if schedule.to_the_last_death:
                    storm.create_task(run.every_death())
                for fault in schedule.faults:
                    storm.create_task(_later(fault, run))
            run.calm.touch()
            await run.settled()
        history = await run.history()
        return Outcome(
            schedule=schedule,
            violations=violations(history),
            said=len(history.logged),
            effects=sum(map(len, history.effects.values())),
            parked=sum(map(len, history.parked.values())),
            lives=sum(replica.lives for replica in replicas),
            broke=[line for replica in replicas for line in replica.broke],
            not_reached=run.not_reached(),
            lasted_s=time.monotonic() - started,
        )


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


async def _later(fault: Fault, run: Run) -> None:
    await asyncio.sleep(fault.at_s)
    await run.play(fault)


def _first_words(diary: Path) -> list[str]:
    return [line.partition(" ")[0] for line in diary.read_text().splitlines()] if diary.exists() else []


async def _end_of(process: BaseProcess) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(process.sentinel, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
