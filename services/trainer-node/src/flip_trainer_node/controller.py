"""A net's controller: carries one attempt after the other through, step by step.

Every step starts from what the database says and ends with a transaction, so that a controller that was killed goes on
where it was. The framework's server dies with the controller: an attempt that was running then is interrupted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from flip_chassis.database import UNREACHABLE, notices
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_contracts.apps import object_of_file
from flip_contracts.base import Message, TrustCode
from flip_contracts.scheduler import RunAssigned
from flip_contracts.trainer_node import NetFree, NetHeartbeat, RoundComplete
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from flip_trainer_node import domain, store, telling
from flip_trainer_node.deciding import Decision, decide
from flip_trainer_node.domain import Attempt
from flip_trainer_node.driver import Driver, DriverRefused
from flip_trainer_node.hub_disk import HubDiskFailed
from flip_trainer_node.objects import ObjectMissing, Objects
from flip_trainer_node.run_folder import RunFolder, Tail
from flip_trainer_node.settings import ControllerSettings

_LOOK_S = 0.1
"""How often a run's folder is looked at, and a job that is to end is asked for: neither is notified."""
_ASK_S = 1.0
_CHANNEL = "attempt"
_RETRY_S = 2.0
_HEARTBEAT_S = 5.0
_TELL_AFTER = timedelta(seconds=12)
"""How long the outcome of an attempt waits for its end at every Trust."""
_REFUSED_FOR_S = 60.0
"""How long an attempt bears refusals that may pass."""
_UNDER_WAY = {"waiting", "running"}
_AWAY = (*UNREACHABLE, MinioException, HTTPError)


@dataclass(slots=True)
class Controller:
    """One net. What it knows only for itself it can find out again after a restart."""

    settings: ControllerSettings
    stands: Backbone
    driver: Driver
    objects: Objects
    connected: frozenset[TrustCode] = frozenset()
    server_answers: bool = False
    free: bool = False
    """Whether it has said that it is free, and has had no run since."""
    tails: dict[str, Tail] = field(default_factory=dict[str, Tail])
    stage: tuple[str, domain.Status] | None = None
    stage_since: float = 0.0
    """When this process first saw its attempt at this stage."""
    ended_jobs: set[str] = field(default_factory=set[str])
    asked_at: float = 0.0
    refused_since: float | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Carry on for ever."""
        await self._patiently(self._interrupt_what_was_running)
        while True:
            self.wake.clear()
            await self._patiently(self._step)
            await self._until_news()

    async def listen(self) -> None:
        """Wake up where something happened to an attempt, and where that may have been missed."""
        async for _ in notices(self.settings.postgres.get_secret_value(), _CHANNEL):
            self.wake.set()

    async def _until_news(self) -> None:
        """Wait until an attempt has changed, its job has written something, or the net's server is to be asked."""
        while not self.wake.is_set():
            left_s = self.asked_at + _ASK_S - time.monotonic()
            if left_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S) if self.tails else left_s):
                    await self.wake.wait()
            if self._is_closing or any(tail.has_grown() for tail in self.tails.values()):
                return

    @property
    def _is_closing(self) -> bool:
        return self.stage is not None and self.stage[1] == "closing"

    async def beat(self) -> None:
        """Give a sign of life every few seconds."""
        while True:
            await self._patiently(self._beat_once)
            await asyncio.sleep(_HEARTBEAT_S)

    async def answers(self) -> bool:
        """Whether the net's server answers."""
        return self.server_answers

    async def _patiently(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step until it is done: Postgres, the net's server and the object store may be away for a while."""
        while True:
            try:
                return await step()
            except _AWAY as error:
                log.warning("a part is away; the step is done again", reason=type(error).__name__)
            except DriverRefused as error:
                log.warning("the driver refused; the step is done again", reason=error.code)
            await asyncio.sleep(_RETRY_S)

    # --- the net --------------------------------------------------------------------------------------------------

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
            attempt = await store.attempt(work.db, row["attempt_id"]) if row else None
        a_second_has_passed = time.monotonic() - self.asked_at >= _ASK_S
        if a_second_has_passed:
            self.asked_at = time.monotonic()
            before = self.connected
            await self._look_who_is_connected()
            if self.free and self.connected != before:
                await self._beat_once()
        if attempt is None:
            await self._rest()
            return
        self.free = False
        match attempt.status:
            case "preparing":
                await self._or_give_up(attempt, self._prepare(attempt))
            case "running":
                await self._or_give_up(attempt, self._follow(attempt, ask=a_second_has_passed))
            case "closing":
                await self._end(attempt)
            case _:
                is_late = self._time_at_stage(attempt) >= self.settings.ending_patience
                await self._decide(attempt, domain.settle_without if is_late else domain.settle)

    async def _look_who_is_connected(self) -> None:
        try:
            self.connected = await self.driver.connected() & self.settings.trusts
            self.server_answers = True
        except DriverRefused as error:
            log.info("the net's server does not answer", reason=error.code)
            self.connected = frozenset()
            self.server_answers = False

    async def _rest(self) -> None:
        await self._forget_ended_runs()
        if self.free or not self.connected:
            return
        for job in await self.driver.running():
            await self.driver.abort(job)
        async with self.stands.working() as work, store.deciding(work.db):
            if await store.open_attempt(work.db) is None:
                fencing = await store.last_fencing(work.db)
                await work.say(
                    NetFree(
                        net=self.settings.net,
                        framework=self.settings.framework,
                        trusts=self.connected,
                        fencing=fencing,
                        resources=self.settings.resources,
                    )
                )
                self.free = True

    async def _forget_ended_runs(self) -> None:
        async with self.stands.working() as work:
            for run_id in await store.to_forget(work.db):
                await asyncio.to_thread(RunFolder.of(self.settings.work, run_id).remove)
                await store.set_forgotten(work.db, run_id)

    # --- an attempt -----------------------------------------------------------------------------------------------

    async def _decide(self, attempt: Attempt, decision: Decision) -> None:
        async with self.stands.working() as work:
            await decide(work, attempt.id, decision)

    def _time_at_stage(self, attempt: Attempt) -> timedelta:
        """How long the attempt has stood where it is. After a restart it counts anew: meanwhile nobody was heard."""
        stage = (attempt.id, attempt.status)
        if self.stage != stage:
            self.stage, self.stage_since = stage, time.monotonic()
        return timedelta(seconds=time.monotonic() - self.stage_since)

    async def _interrupt_what_was_running(self) -> None:
        """After a restart: tell what is on disk, then give up what the killed server can't go on with."""
        async with self.stands.working() as work:
            row = await store.open_attempt(work.db)
            attempt = await store.attempt(work.db, row["attempt_id"]) if row else None
        if attempt is not None and attempt.status == "running":
            await self._or_give_up(attempt, self._tell_news(attempt))
            await self._decide(attempt, lambda now: domain.close(now, "interrupted", "controller-restarted"))

    async def _or_give_up(self, attempt: Attempt, step: Awaitable[object]) -> None:
        """Do a step of the attempt; end the attempt where doing the step again wouldn't mend what went wrong."""
        try:
            await step
            self.refused_since = None
        except HubDiskFailed as failed:
            reason = failed.code
            log.error("a file of the run can't be used", reason=reason, attempt_id=attempt.id)
            await self._decide(attempt, lambda now: domain.close(now, "interrupted", reason))
        except DriverRefused as refused:
            self.refused_since = self.refused_since or time.monotonic()
            waited_s = time.monotonic() - self.refused_since
            if refused.passes or (refused.may_pass and waited_s < _REFUSED_FOR_S):
                raise
            code = refused.code
            outcome = "failed" if refused.is_of_the_run else "interrupted"
            log.error("the driver refused", reason=code, detail=refused.detail, attempt_id=attempt.id)
            await self._decide(attempt, lambda now: domain.close(now, outcome, code))

    async def _prepare(self, attempt: Attempt) -> None:
        """Hand the job to the framework once every Trust that takes part is ready."""
        if not attempt.is_prepared:
            if self._time_at_stage(attempt) >= self.settings.preparing_patience:
                await self._decide(attempt, domain.omit_silent)
            return
        run = attempt.run
        folder = RunFolder.of(self.settings.work, run.run_id)
        await asyncio.to_thread(folder.make)
        if run.checkpoint is not None:
            try:
                for weights in domain.weights_to_go_on_from(run.checkpoint):
                    await self.objects.get(weights.object, folder.round(weights.round))
            except ObjectMissing:
                await self._decide(attempt, lambda now: domain.close(now, "failed", "checkpoint-missing"))
                return
            await asyncio.to_thread(folder.seal_round, run.checkpoint)
        if run.earlier is not None:
            name = domain.object_of_results(run.earlier.run_id, run.earlier.digest)
            try:
                await self.objects.get_exactly(name, run.earlier.digest, folder.earlier)
            except ObjectMissing:
                await self._decide(attempt, lambda now: domain.close(now, "failed", "model-missing"))
                return
        try:
            await self._fetch_app(run, folder)
        except ObjectMissing:
            await self._decide(attempt, lambda now: domain.close(now, "failed", "app-file-missing"))
            return
        record = domain.job_record(run, self.settings.terms, attempt.cohorts)
        job = await self.driver.submit(str(run.run_id), run.attempt, sorted(run.trusts), folder.path, record)
        await self._decide(attempt, lambda now: domain.submit(now, job, record))

    async def _fetch_app(self, run: RunAssigned, folder: RunFolder) -> None:
        """Lay the files of a researcher's app where the framework's controller takes them from."""
        for path, digest in sorted(run.files.items()):
            await self.objects.get_exactly(object_of_file(run.model_id, digest), digest, folder.app(path))

    async def _follow(self, attempt: Attempt, *, ask: bool) -> None:
        """Tell what the job tells; where it ended without a word, interrupt the attempt."""
        if await self._tell_news(attempt) or not ask or attempt.job is None:
            return
        state = await self.driver.state(attempt.job)
        if state not in _UNDER_WAY and not await self._tell_news(attempt):
            detail = f"{self.settings.runtime.name}: {state}."
            await self._decide(attempt, lambda now: domain.close(now, "interrupted", "job-ended", detail))

    async def _end(self, attempt: Attempt) -> None:
        """See to it that nothing of the attempt is left, then tell its outcome; late rather than never."""
        is_late = self._time_at_stage(attempt) >= _TELL_AFTER
        ended = await self._job_has_ended(attempt)
        try:
            await self._tell_news(attempt)
        except HubDiskFailed as failed:
            log.warning("a file of the run can't be used; it ends without", reason=failed.code)
        if (ended and attempt.is_gone) or is_late:
            await self._decide(attempt, domain.finish)
            self.tails.clear()

    async def _job_has_ended(self, attempt: Attempt) -> bool:
        job = attempt.job
        if job is None or job in self.ended_jobs:
            return True
        try:
            if attempt.closing is None or attempt.closing.outcome != "collected":
                await self.driver.abort(job)
            ended = await self.driver.state(job) not in _UNDER_WAY
        except DriverRefused as error:
            log.warning("a job could not be ended yet", reason=error.code)
            return False
        if ended:
            self.ended_jobs.add(job)
        return ended

    # --- what an attempt tells ------------------------------------------------------------------------------------

    async def _tell_news(self, attempt: Attempt) -> bool:
        """Say what the new lines of the run's folder mean, each once; answers whether one ended the attempt."""
        folder = RunFolder.of(self.settings.work, attempt.run.run_id)
        tail = self.tails.setdefault(attempt.id, Tail(folder))
        async with self.stands.working() as work:
            told = await store.told(work.db, attempt.id)
        lines = await asyncio.to_thread(lambda: list(tail.lines()))
        news = [line for line in lines if line["seq"] > told and line["attempt"] == attempt.run.attempt]
        try:
            for line in news:
                await self._tell(attempt, folder, line)
        except BaseException:
            del self.tails[attempt.id]  # what was not told is read again
            raise
        return bool(news) and news[-1]["kind"] in telling.LAST_WORDS

    async def _tell(self, attempt: Attempt, folder: RunFolder, line: telling.Line) -> None:
        said = telling.tell(line, attempt.run)
        if line["kind"] == "round-complete":
            said.append(await self._store_round(attempt, folder, line))
        collects = line["kind"] == "finished" and attempt.status == "running"
        if collects:
            said.append(await self._store_results(attempt, line))
        async with self.stands.working() as work, store.deciding(work.db):
            for message in said:
                await work.say(message)
            await store.set_told(work.db, attempt.id, line["seq"])
            await decide(work, attempt.id, lambda now: telling.close(now, line))

    async def _store_round(self, attempt: Attempt, folder: RunFolder, line: telling.Line) -> RoundComplete:
        name = domain.object_of_round(attempt.run, line["round"])
        stored = await self.objects.put(name, folder.round(line["round"]))
        return telling.round_complete(line, attempt.run, name, stored.digest, stored.size_bytes)

    async def _store_results(self, attempt: Attempt, line: telling.Line) -> Message:
        archive = telling.archive(line)
        name = domain.object_of_results(attempt.run.run_id, line["archive_sha256"])
        stored = await self.objects.put(name, archive)
        return telling.results_collected(attempt.run, name, stored.digest, stored.size_bytes, line["seal_sha256"])
