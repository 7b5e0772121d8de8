"""What the ledger hears: everything."""

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler
from flip_chassis.log import Said
from flip_contracts.base import Message
from flip_contracts.catalogue import messages
from flip_contracts.cloudevents import Envelope

from flip_audit import store


async def enter(message: Message, db: Connection, said: Envelope) -> None:
    """Keep what was said."""
    await store.enter(db, Said(said, message))


def entering(type_: type[Message]) -> Handler:
    """The handler that enters messages of one type."""
    return Handler("projection", type_, enter, ("db", "envelope"))


handlers = (*user_handlers, *project_handlers, *(entering(type_) for type_ in messages()))
