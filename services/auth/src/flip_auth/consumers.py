"""What the auth service keeps of what it says itself; it hears nobody else."""

from flip_chassis.access import user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import projection
from flip_contracts.auth import (
    LoginSucceeded,
    RoleChanged,
    UserActivated,
    UserDisabled,
    UserEnabled,
    UserInvited,
)
from flip_contracts.cloudevents import Envelope

from flip_auth import store


@projection
async def note_invited(event: UserInvited, db: Connection, said: Envelope) -> None:
    await store.keep_invited(db, event.user_id, event.role, said.time)


@projection
async def note_activated(event: UserActivated, db: Connection) -> None:
    await store.keep_activated(db, event.user_id)


@projection
async def note_disabled(event: UserDisabled, db: Connection) -> None:
    await store.keep_disabled(db, event.user_id)


@projection
async def note_enabled(event: UserEnabled, db: Connection) -> None:
    await store.keep_enabled(db, event.user_id)


@projection
async def note_role(event: RoleChanged, db: Connection) -> None:
    await store.keep_role(db, event.user_id, event.role)


@projection
async def note_login(event: LoginSucceeded, db: Connection, said: Envelope) -> None:
    await store.keep_login(db, event.user_id, said.time)


handlers = (
    *user_handlers,
    note_invited,
    note_activated,
    note_disabled,
    note_enabled,
    note_role,
    note_login,
)
