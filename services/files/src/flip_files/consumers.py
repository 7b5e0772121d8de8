"""What the files service hears, and what it keeps of what it says."""

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import projection, reaction
from flip_chassis.work import Work
from flip_contracts.cloudevents import Envelope
from flip_contracts.files import (
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    ResultsPublished,
    ResultsRefused,
    RoundsDeleted,
)
from flip_contracts.projects import ModelCreated, ModelDeleted
from flip_contracts.scheduler import RunAssigned, RunFailed, RunFinished, RunQueued, RunStopped
from flip_contracts.trainer_node import ResultsCollected, RoundComplete

from flip_files import store


@projection
async def learn_collected(event: ResultsCollected, db: Connection) -> None:
    await store.keep_bundle(db, event)


@reaction
async def scan_what_was_collected(event: ResultsCollected, work: Work) -> None:
    await store.await_scan(work.db, event)


@projection
async def offer(event: ResultsPublished, db: Connection, said: Envelope) -> None:
    await store.keep_published(db, event, said.time)


@projection
async def withhold(event: ResultsRefused, db: Connection, said: Envelope) -> None:
    await store.keep_refused(db, event, said.time)


@projection
async def learn_round(event: RoundComplete, db: Connection, said: Envelope) -> None:
    await store.keep_round(db, event, said.time)


@reaction
async def thin_again_where_a_round_came_late(event: RoundComplete, work: Work) -> None:
    await store.await_thinning_again(work.db, event.run_id)


@projection
async def learn_beginning(event: RunQueued, db: Connection) -> None:
    if event.continues is not None:
        await store.keep_beginning(db, event.continues)


@projection
async def learn_attempt(event: RunAssigned, db: Connection) -> None:
    await store.keep_attempt(db, event)


@projection
async def learn_finished(event: RunFinished, db: Connection, said: Envelope) -> None:
    await store.keep_end(db, event.run_id, said.time)


@projection
async def learn_stopped(event: RunStopped, db: Connection, said: Envelope) -> None:
    await store.keep_end(db, event.run_id, said.time)


@projection
async def learn_failed(event: RunFailed, db: Connection, said: Envelope) -> None:
    await store.keep_end(db, event.run_id, said.time)


@reaction
async def thin_once_finished(event: RunFinished, work: Work) -> None:
    await store.await_thinning(work.db, event.run_id)


@reaction
async def thin_once_stopped(event: RunStopped, work: Work) -> None:
    await store.await_thinning(work.db, event.run_id)


@reaction
async def thin_once_failed(event: RunFailed, work: Work) -> None:
    await store.await_thinning(work.db, event.run_id)


@projection
async def forget_rounds(event: RoundsDeleted, db: Connection) -> None:
    await store.drop_rounds(db, event)


@projection
async def learn_model(event: ModelCreated, db: Connection) -> None:
    await store.keep_model(db, event)


@projection
async def forget_model(event: ModelDeleted, db: Connection) -> None:
    await store.drop_model(db, event.model_id)


@projection
async def keep_upload(event: ModelFileUploaded, db: Connection, said: Envelope) -> None:
    await store.keep_upload(db, event, said)


@projection
async def keep_accepted(event: ModelFileAccepted, db: Connection) -> None:
    await store.keep_accepted(db, event)


@projection
async def keep_refused(event: ModelFileRefused, db: Connection) -> None:
    await store.keep_file_refused(db, event)


@projection
async def drop_removed(event: ModelFileRemoved, db: Connection) -> None:
    await store.drop_file(db, event)


handlers = (
    *user_handlers,
    *project_handlers,
    learn_collected,
    scan_what_was_collected,
    offer,
    withhold,
    learn_round,
    thin_again_where_a_round_came_late,
    learn_beginning,
    learn_attempt,
    learn_finished,
    learn_stopped,
    learn_failed,
    thin_once_finished,
    thin_once_stopped,
    thin_once_failed,
    forget_rounds,
    learn_model,
    forget_model,
    keep_upload,
    keep_accepted,
    keep_refused,
    drop_removed,
)
