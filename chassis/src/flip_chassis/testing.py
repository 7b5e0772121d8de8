"""What the services' tests share: refusals named in one line, a running service, people with tokens."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from flip_contracts.auth import Role, UserActivated, UserInvited, email_digest
from flip_contracts.base import REGISTRY, Message, SessionId, UserId
from joserfc import jwt
from joserfc.jwk import OKPKey

from flip_chassis.access import ALGORITHM, ISSUER
from flip_chassis.database import Connection
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, append, last_version
from flip_chassis.refusal import Refused

T = TypeVar("T")
PATIENCE_S = 60.0


@contextmanager
def refused(code: str, **facts: Any) -> Generator[None]:
    """Expect a refusal with this code and, where given, these facts."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code
    assert {name: caught.value.facts.get(name) for name in facts} == facts


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float = PATIENCE_S) -> T:
    """The first truthy answer of `look`. Fails with the last answer when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s; the last answer was {found!r}")
        await asyncio.sleep(0.05)


async def said(db: Connection, type_: type[T]) -> list[T]:
    """The messages of one type in a service's event log, oldest first."""
    rows = await db.fetch("SELECT type, payload FROM event_log ORDER BY pos")
    messages = [REGISTRY[row["type"]].decode(row["payload"]) for row in rows]
    return [message for message in messages if isinstance(message, type_)]


async def say_as(db: Connection, source: str, message: Message, *, trust: str | None = None) -> None:
    """Put a message into a service's event log as another service would say it; that database's relay publishes it."""
    topic = message.topic.named(trust)
    cause = Cause(actor=f"service:{source}", time=datetime.now(UTC), correlation_id=uuid7())
    async with db.transaction():
        await append(db, source, topic, message.key, await last_version(db, topic, message.key), [message], cause)


@dataclass(slots=True)
class People:
    """Signs access tokens as `auth` does, for services under test."""

    key: OKPKey = field(default_factory=lambda: OKPKey.generate_key("Ed25519", {"kid": "test"}))

    def jwks(self) -> dict[str, Any]:
        """The public keys, as `auth` publishes them."""
        return {"keys": [self.key.as_dict(private=False)]}

    def token(
        self, user_id: UserId, *, version: int = 2, session_id: UUID | None = None, expires_in_s: int = 300
    ) -> str:
        """An access token of a user whose stream has come to `version`."""
        claims = {
            "iss": ISSUER,
            "sub": str(user_id),
            "sid": str(session_id or uuid7()),
            "uv": version,
            "exp": int(time.time()) + expires_in_s,
        }
        return jwt.encode({"alg": ALGORITHM, "kid": "test"}, claims, self.key, algorithms=[ALGORITHM])


def invited(role: Role, address: str) -> tuple[UserInvited, UserActivated]:
    """What `auth` says of a new user who has set their password."""
    user_id = UserId(uuid7())
    return (
        UserInvited(user_id=user_id, role=role, email_digest=email_digest(address)),
        UserActivated(user_id=user_id),
    )


def new_session() -> SessionId:
    """The id of a session."""
    return SessionId(uuid7())


@asynccontextmanager
async def client(service: AbstractAsyncContextManager[FastAPI]) -> AsyncGenerator[httpx.AsyncClient]:
    """The service, running with all its parts, and a client of its routes."""
    async with service as app:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as http:
            yield http
