"""What the ledger hears: everything."""

from datetime import UTC, datetime

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler, projection
from flip_chassis.log import Said
from flip_contracts.audit import CheckpointSigned
from flip_contracts.base import Message
from flip_contracts.catalogue import messages
from flip_contracts.cloudevents import Envelope

from flip_audit import store


async def enter(message: Message, db: Connection, said: Envelope) -> None:
    """Enter what was said into the chain."""
    await store.enter(db, [Said(said, message)], datetime.now(UTC))


def entering(type_: type[Message]) -> Handler:
    """The handler that enters messages of one type."""
    return Handler("record", type_, enter, ("db", "envelope"))


@projection
async def note_stored(event: CheckpointSigned, db: Connection, said: Envelope) -> None:
    await store.note_stored(db, event, said.time)


handlers = (*user_handlers, *project_handlers, note_stored, *(entering(type_) for type_ in messages()))
