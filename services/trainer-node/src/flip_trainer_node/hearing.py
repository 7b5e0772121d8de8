"""What a net's controller hears at the hub, and the projections of what it keeps to itself."""

from datetime import datetime

from flip_chassis.access import user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler, projection, reaction, trust_of
from flip_chassis.work import Work
from flip_contracts.base import NetName, RunId, TrustCode
from flip_contracts.cloudevents import Envelope
from flip_contracts.scheduler import RunAssigned, RunFailed, RunFinished, RunRequeued, RunStopped, RunStopping
from flip_contracts.trainer_node import (
    RunPrepared,
    StageReached,
    TrustEndedRun,
    TrustPreparedRun,
    TrustRefusedRun,
    WorkerStarted,
)

from flip_trainer_node import domain, store
from flip_trainer_node.attempts import (
    AttemptClosed,
    AttemptClosing,
    AttemptOver,
    AttemptTaken,
    JobSubmitted,
)
from flip_trainer_node.deciding import decide
from flip_trainer_node.domain import ATTEMPTS, attempt_id


@projection
async def keep_attempt(event: AttemptTaken, db: Connection) -> None:
    await store.keep_attempt(db, event.attempt_id, event.assigned)


@projection
async def keep_submission(event: JobSubmitted, db: Connection) -> None:
    await store.move_on(db, event.attempt_id, "preparing", "running")


@projection
async def keep_closing(event: AttemptClosing, db: Connection) -> None:
    await store.set_status(db, event.attempt_id, "closing")


@projection
async def keep_over(event: AttemptOver, db: Connection) -> None:
    await store.set_status(db, event.attempt_id, "over")


@projection
async def keep_closed(event: AttemptClosed, db: Connection) -> None:
    await store.set_status(db, event.attempt_id, "closed")


projections = (keep_attempt, keep_submission, keep_closing, keep_over, keep_closed)


@reaction
async def note_prepared(event: TrustPreparedRun, work: Work, said: Envelope) -> None:
    trust = trust_of(said)
    async with store.deciding(work.db):
        async with work.on(ATTEMPTS, attempt_id(event.run_id, event.attempt)) as it:
            it.record(*domain.note_prepared(it.state, trust, event, said.time))
        if it.recorded:
            await work.say(
                RunPrepared(
                    run_id=event.run_id,
                    project_id=it.state.run.project_id,
                    attempt=event.attempt,
                    trust=trust,
                    cases=event.cases,
                    dataset_digest=event.dataset_digest,
                    cohort_digest=event.cohort_digest,
                )
            )


@reaction
async def note_refusal(event: TrustRefusedRun, work: Work, said: Envelope) -> None:
    trust = trust_of(said)
    await decide(work, attempt_id(event.run_id, event.attempt), lambda now: domain.refuse(now, trust, event.reason))


@reaction
async def note_end(event: TrustEndedRun, work: Work, said: Envelope) -> None:
    trust = trust_of(said)
    await decide(work, attempt_id(event.run_id, event.attempt), lambda now: domain.note_ended(now, trust))


@reaction
async def stop_run(event: RunStopping, work: Work) -> None:
    await _close(work, event.run_id, event.attempt, "stopped", "stopped")


@reaction
async def give_up_lost_run(event: RunRequeued, work: Work) -> None:
    await _close(work, event.run_id, event.attempt, "interrupted", "net-lost")


@reaction
async def forget_stopped_run(event: RunStopped, work: Work) -> None:
    await _forget(work, event.run_id)


@reaction
async def forget_finished_run(event: RunFinished, work: Work) -> None:
    await _forget(work, event.run_id)


@reaction
async def forget_failed_run(event: RunFailed, work: Work) -> None:
    await _forget(work, event.run_id)


reactions = (
    note_prepared,
    note_refusal,
    note_end,
    stop_run,
    give_up_lost_run,
    forget_stopped_run,
    forget_finished_run,
    forget_failed_run,
)


def handlers(net: NetName) -> tuple[Handler, ...]:
    """Everything that the controller of this net hears."""

    async def take_run(event: RunAssigned, work: Work) -> None:
        if event.net == net:
            await _take(work, event)

    async def note_new_worker(event: WorkerStarted, work: Work, said: Envelope) -> None:
        if event.net == net:
            await _lose_worker(work, trust_of(said), said.time)

    return (*user_handlers, *projections, *reactions, reaction(take_run), reaction(note_new_worker))


async def _take(work: Work, event: RunAssigned) -> None:
    async with store.deciding(work.db):
        if event.fencing <= await store.last_fencing(work.db):
            return
        async with work.on(ATTEMPTS, attempt_id(event.run_id, event.attempt)) as it:
            it.record(*domain.take(it.state, event))
        await work.say(
            StageReached(run_id=event.run_id, project_id=event.project_id, attempt=event.attempt, stage="preparing")
        )
        for trust in sorted(event.trusts):
            await work.say(domain.prepare(event), to=trust)


async def _lose_worker(work: Work, trust: TrustCode, said_at: datetime) -> None:
    async with store.deciding(work.db):
        row = await store.open_attempt(work.db)
        if row is not None:
            await decide(work, row["attempt_id"], lambda now: domain.lose_worker(now, trust, said_at))


async def _close(work: Work, run_id: RunId, attempt: int, outcome: domain.Outcome, reason: str) -> None:
    await decide(work, attempt_id(run_id, attempt), lambda now: domain.close(now, outcome, reason))


async def _forget(work: Work, run_id: RunId) -> None:
    """The run has ended for good: nothing of it is kept, here or at the Trusts."""
    async with store.deciding(work.db):
        rows = await store.attempts_of(work.db, run_id)
        for row in rows:
            await _close(work, run_id, row["attempt"], "stopped", "run-ended")
        if rows:
            last = await store.attempt(work.db, rows[-1]["attempt_id"])
            for trust in sorted(last.asked):
                await work.say(domain.end_run(last.run, forget=True), to=trust)
            await store.forget(work.db, run_id)
