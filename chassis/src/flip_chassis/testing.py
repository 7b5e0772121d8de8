# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""What the services' tests share: refusals named in one line, a running service, people with tokens."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from flip_contracts.auth import Role, UserActivated, UserInvited, email_digest
from flip_contracts.base import REGISTRY, Message, UserId
from flip_contracts.cloudevents import Envelope
from joserfc import jwt
from joserfc.jwk import OKPKey
from pydantic import SecretStr

from flip_chassis.access import ALGORITHM, ISSUER
from flip_chassis.database import Connection
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Behind, Refused
from flip_chassis.settings import Settings

T = TypeVar("T")
S = TypeVar("S", bound=Settings)
PATIENCE_S = 60.0


@contextmanager
def refused(code: str, **facts: Any) -> Generator[None]:
    """Expect a refusal with this code and, where given, these facts."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code
    assert {name: caught.value.facts.get(name) for name in facts} == facts


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float = PATIENCE_S) -> T:
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


class Principal(Protocol):
    """What a client needs to speak to Kafka as one principal."""

    @property
    def bootstrap(self) -> str: ...
    @property
    def certificate(self) -> Path: ...
    @property
    def ca(self) -> Path: ...
    def ssl_context(self) -> ssl.SSLContext: ...


class Databases(Protocol):
    """The DSNs of a database's two roles."""

    @property
    def owner(self) -> str: ...
    @property
    def app(self) -> str: ...


def settings_for(
    kind: type[S], database: Databases, principal: Principal, group: str, jwks_url: str = "", **more: Any
) -> S:
    """The settings of a service under test, with a consumer group of its own."""
    return kind(
        port=0,
        postgres=SecretStr(database.app),
        postgres_owner=SecretStr(database.owner),
        kafka=principal.bootstrap,
        kafka_certificate=principal.certificate,
        kafka_ca=principal.ca,
        kafka_group=group,
        jwks_url=jwks_url,
        **more,
    )


@dataclass(slots=True)
class Speaker:
    """Says messages on Kafka as another service or a Trust would, each stream counted from 1."""

    producer: Any
    source: str
    versions: dict[str, int] = field(default_factory=dict[str, int])

    async def say(self, message: Message, *, trust: str | None = None, actor: str = "service:test") -> Envelope:
        """Say one message and wait until the broker has it."""
        topic = message.topic.named(trust)
        stream = f"{topic}/{message.key}"
        self.versions[stream] = self.versions.get(stream, 0) + 1
        envelope = Envelope(
            id=uuid7(),
            type=message.type_name,
            source=self.source,
            topic=topic,
            key=message.key,
            stream_version=self.versions[stream],
            time=datetime.now(UTC),
            actor=actor,
            correlation_id=uuid7(),
            causation_id=None,
            traceparent=None,
        )
        await self.repeat(envelope, message)
        return envelope

    async def repeat(self, envelope: Envelope, message: Message) -> None:
        """Say exactly this, again or for the first time."""
        await self.producer.send_and_wait(
            envelope.topic, value=message.encode(), key=envelope.key.encode(), headers=envelope.headers()
        )


@asynccontextmanager
async def speaking(principal: Principal, source: str) -> AsyncGenerator[Speaker]:
    """A speaker as `principal`, who must have the right to write the topics."""
    producer = AIOKafkaProducer(
        bootstrap_servers=principal.bootstrap,
        security_protocol="SSL",
        ssl_context=principal.ssl_context(),
        acks="all",
        enable_idempotence=True,
    )
    await producer.start()
    try:
        yield Speaker(producer, source)
    finally:
        await producer.stop()


@dataclass(slots=True)
class People:
    """Signs access tokens as `auth` does, for services under test."""

    key: OKPKey = field(default_factory=lambda: OKPKey.generate_key("Ed25519", {"kid": "test"}))

    @contextmanager
    def published(self) -> Generator[str]:
        """The address where the public keys can be fetched."""
        body = orjson.dumps(self.jwks())

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Tests need no access log."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()

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


class Patient(httpx.ASGITransport):
    """Asks again while the service has yet to hear of something, as every client of FLIP does.

    A request with `extensions={"patient": False}` takes the first answer.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = await super().handle_async_request(request)
            behind = answer.status_code == Behind.status and "retry-after" in answer.headers
            if not behind or not request.extensions.get("patient", True) or time.monotonic() > deadline:
                return answer


@asynccontextmanager
async def client(service: AbstractAsyncContextManager[FastAPI]) -> AsyncGenerator[httpx.AsyncClient]:
    """The service, running with all its parts, and a client of its routes."""
    async with service as app:
        transport = Patient(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as http:
            yield http


async def routes(http: httpx.AsyncClient, service: str) -> set[str]:
    """Every route of a service as `GET /users/me`, from its OpenAPI document: what a table of permissions must hold.

    Those under `/operations` are the chassis's own, with one rule for all.
    """
    document = (await http.get(f"/api/{service}/openapi.json")).raise_for_status().json()
    return {
        f"{method.upper()} {path.removeprefix(f'/api/{service}')}"
        for path, methods in document["paths"].items()
        for method in methods
        if not path.startswith(f"/api/{service}/operations/")
    }
