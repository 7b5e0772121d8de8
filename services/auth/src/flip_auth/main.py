"""The auth service: users, roles, credentials and sessions."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from flip_chassis.background import background
from flip_chassis.ids import uuid7
from flip_chassis.service import Backbone, backbone, run
from flip_contracts.auth import UserActivated, email_digest
from flip_contracts.base import UserId

from flip_auth import api, consumers, domain, store
from flip_auth.door import Door
from flip_auth.invitations import Postman
from flip_auth.passwords import Passwords
from flip_auth.settings import AuthSettings
from flip_auth.tokens import SigningKey

MIGRATIONS = Path(__file__).parent / "migrations"
PROJECTED = ("person",)


async def make_first_admin(stands: Backbone, settings: AuthSettings, passwords: Passwords) -> None:
    """Where there is no user yet, make the admin of the settings. Raises Invalid where their password is weak."""
    if settings.bootstrap_email is None or settings.bootstrap_password is None:
        return
    password = settings.bootstrap_password.get_secret_value()
    domain.check_password(password)
    kept = await passwords.hash(password)
    user_id, digest = UserId(uuid7()), email_digest(settings.bootstrap_email)
    async with stands.working() as work, work.db.transaction():
        await store.lock_accounts(work.db)
        if await store.any_account(work.db):
            return
        async with work.on(domain.USER_AGGREGATE, user_id) as user:
            user.record(domain.invite(user.state, user_id, "admin", digest), UserActivated(user_id=user_id))
            await store.add_account(work.db, user_id, settings.bootstrap_email, digest)
            await store.set_password(work.db, user_id, kept)


@asynccontextmanager
async def service(settings: AuthSettings) -> AsyncGenerator[FastAPI]:
    """Everything the service is made of."""
    key = SigningKey.of(settings.signing_key)
    passwords = Passwords()

    async def own_keys() -> Mapping[str, Any]:
        return key.jwks()

    async with backbone(settings, MIGRATIONS, consumers.handlers, PROJECTED) as stands:
        await make_first_admin(stands, settings, passwords)
        postman = Postman(stands.pool, settings)
        async with background(postman.run(), "postman"):
            app = stands.http(api.sessions, api.users, keys=own_keys)
            door = Door(app.state.context, settings, passwords, key)
            app.state.desk = api.Desk(settings, key, passwords, door, postman)
            yield app


def main() -> None:
    """Run the service until it is told to stop."""
    run(service, AuthSettings())  # pyright: ignore[reportCallIssue]
