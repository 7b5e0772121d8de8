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
)
from flip_contracts.projects import ModelCreated, ModelDeleted
from flip_contracts.trainer_node import ResultsCollected

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
    learn_model,
    forget_model,
    keep_upload,
    keep_accepted,
    keep_refused,
    drop_removed,
)
