"""What the ledger hears: everything."""

from collections.abc import Sequence
from datetime import UTC, datetime

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import projection, record
from flip_chassis.log import Said
from flip_contracts.audit import CheckpointSigned
from flip_contracts.catalogue import messages
from flip_contracts.cloudevents import Envelope

from flip_audit import store


async def enter(heard: Sequence[Said], db: Connection) -> None:
    """Enter what was said into the chain."""
    await store.enter(db, heard, datetime.now(UTC))


@projection
async def note_stored(event: CheckpointSigned, db: Connection, said: Envelope) -> None:
    await store.note_stored(db, event, said.time)


handlers = (*user_handlers, *project_handlers, note_stored, *(record(type_, enter) for type_ in messages()))
