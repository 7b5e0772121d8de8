"""A net's controller: carries one attempt after the other through, step by step.

Every step starts from what the database says and ends with a transaction, so that a controller that was killed goes on
where it was. The FLARE server dies with the controller: an attempt that was running then is interrupted.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flip_chassis.database import UNREACHABLE
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_chassis.work import Work
from flip_contracts.base import Message, TrustCode
from flip_contracts.scheduler import Checkpoint
from flip_contracts.trainer_node import NetFree, NetHeartbeat, StageReached
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from flip_trainer_node import domain, store, telling
from flip_trainer_node.domain import ATTEMPTS, Attempt
from flip_trainer_node.driver import Driver, DriverRefused
from flip_trainer_node.objects import ObjectDiffers, Objects
from flip_trainer_node.run_folder import RunFolder, Tail
from flip_trainer_node.settings import ControllerSettings

_TICK_S = 0.1
_ASK_S = 1.0
_RETRY_S = 2.0
_HEARTBEAT_S = 5.0
_TELL_AFTER_S = 12.0
"""How long the outcome of an attempt waits for the Trusts to have ended it."""
_UNDER_WAY = {"waiting", "running"}
_STORE_AWAY = (MinioException, HTTPError)


@dataclass(slots=True)
class Controller:
    """One net."""

    settings: ControllerSettings
    stands: Backbone
    driver: Driver
    objects: Objects
    connected: frozenset[TrustCode] = frozenset()
    free: bool = False
    """Whether the net has said that it is free since its last run."""
    tails: dict[str, Tail] = field(default_factory=dict[str, Tail])
    asked_at: float = 0.0
    closing_since: dict[str, float] = field(default_factory=dict[str, float])

    async def run(self) -> None:
        """Carry on for ever."""
        await self._patiently(self._interrupt_what_was_running)
        while True:
            await self._patiently(self._step)
            await asyncio.sleep(_TICK_S)

    async def beat(self) -> None:
        """Give a sign of life every few seconds."""
        while True:
            await self._patiently(self._beat_once)
            await asyncio.sleep(_HEARTBEAT_S)

    async def _patiently(self, step: Any) -> None:
        """Do a step; where Postgres, FLARE or the object store is away it is done again later."""
        try:
            await step()
        except (*UNREACHABLE, *_STORE_AWAY) as error:
            log.warning("a part is away; the step is done again", reason=type(error).__name__)
            await asyncio.sleep(_RETRY_S)
        except DriverRefused as error:
            log.info("FLARE is not ready; the step is done again", reason=error.code)
            await asyncio.sleep(_ASK_S)

    # --- between runs ---------------------------------------------------------------------------------------------

    async def _beat_once(self) -> None:
        async with self.stands.working() as work:
            row = await store.open_attempt(work.db)
            without = "free" if self.free else "starting"
            await work.say(
                NetHeartbeat(
                    net=self.settings.net,
                    state=domain.NET_STATE[row["status"]] if row else without,
                    trusts=self.connected,
                    run_id=row["run_id"] if row else None,
                    fencing=row["fencing"] if row else None,
                )
            )

    async def _step(self) -> None:
        async with self.stands.working() as work:
            row = await store.open_attempt(work.db)
            attempt = await self._load(work, row["attempt_id"]) if row else None
        await self._look_who_is_connected()
        if row is None or attempt is None:
            await self._rest()
            return
        self.free = False
        match attempt.status:
            case "preparing":
                await self._prepare(row["attempt_id"], attempt)
            case "running":
                await self._follow(row["attempt_id"], attempt)
            case "closing":
                await self._close(row["attempt_id"], attempt)
            case _:
                await self._record(row["attempt_id"], lambda now: domain.settle(now))

    async def _look_who_is_connected(self) -> None:
        if time.monotonic() - self.asked_at >= _ASK_S:
            self.asked_at = time.monotonic()
            self.connected = frozenset()
            self.connected = await self.driver.connected() & self.settings.trusts

    async def _rest(self) -> None:
        await self._forget_ended_runs()
        if self.free or self.connected != self.settings.trusts:
            return
        async with self.stands.working() as work, work.db.transaction():
            if await store.open_attempt(work.db) is None:
                fencing = await store.last_fencing(work.db)
                await work.say(
                    NetFree(net=self.settings.net, framework="nvflare", trusts=self.connected, fencing=fencing)
                )
                self.free = True

    async def _forget_ended_runs(self) -> None:
        async with self.stands.working() as work:
            for run_id in await store.to_forget(work.db):
                await asyncio.to_thread(RunFolder.of(self.settings.work, run_id).remove)
                await store.set_forgotten(work.db, run_id)

    # --- a run ----------------------------------------------------------------------------------------------------

    async def _prepare(self, attempt_id: str, attempt: Attempt) -> None:
        """Hand the job to FLARE once every Trust is ready."""
        if not attempt.is_prepared:
            return
        run = attempt.run
        folder = RunFolder.of(self.settings.work, run.run_id)
        await asyncio.to_thread(folder.make)
        if run.checkpoint is not None:
            try:
                await self.objects.get(run.checkpoint.object, run.checkpoint.digest, folder.round(run.checkpoint.round))
            except ObjectDiffers:
                await self._record(attempt_id, lambda now: domain.close(now, "failed", "checkpoint-differs"))
                return
        record = domain.job_record(run, self.settings.compute_profile)
        job = await self.driver.submit(str(run.run_id), run.attempt, sorted(run.trusts), folder.path, record)
        await self._record(attempt_id, lambda now: domain.submit(now, job, record))

    async def _follow(self, attempt_id: str, attempt: Attempt) -> None:
        """Tell what the job has told; where it ended without a word, interrupt the attempt."""
        if await self._tell_news(attempt_id, attempt) or attempt.job is None:
            return
        if await self._is_under_way(attempt.job):
            return
        if not await self._tell_news(attempt_id, attempt):
            await self._record(attempt_id, lambda now: domain.close(now, "interrupted", "job-gone"))

    async def _is_under_way(self, job: str) -> bool:
        return await self.driver.state(job) in _UNDER_WAY

    async def _tell_news(self, attempt_id: str, attempt: Attempt) -> bool:
        """Tell every new line of the run's folder; answers whether one of them ended the attempt."""
        folder = RunFolder.of(self.settings.work, attempt.run.run_id)
        tail = self.tails.setdefault(attempt_id, Tail(folder))
        async with self.stands.working() as work:
            told = await store.told(work.db, attempt_id)
        for line in await asyncio.to_thread(lambda: list(tail.lines())):
            if line["seq"] > told and line["attempt"] == attempt.run.attempt:
                if await self._tell_line(attempt_id, attempt, folder, line):
                    return True
        return False

    async def _tell_line(self, attempt_id: str, attempt: Attempt, folder: RunFolder, line: Mapping[str, Any]) -> bool:
        said = telling.tell(line, attempt.run)
        closing: list[Message] = []
        match line["kind"]:
            case "round":
                said.append(await self._store_round(attempt, folder, line))
            case "finished":
                said.append(await self._store_results(attempt, line))
                closing = domain.close(attempt, "collected", "finished")
            case "failed" | "interrupted" as outcome:
                closing = domain.close(attempt, outcome, line["reason"], telling.why(line))
            case "stopped":
                closing = domain.close(attempt, "interrupted", "job-aborted")
            case _:
                pass
        ...
