"""The auth service on real Postgres, Kafka and SMTP: invited, logged in, refreshed, shut out."""

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from flip_auth import domain, invitations, store
from flip_auth.api import COOKIE
from flip_auth.invitations import Postman
from flip_auth.main import MIGRATIONS, service
from flip_auth.passwords import Passwords
from flip_auth.settings import AuthSettings
from flip_auth.tokens import SigningKey
from flip_chassis.access import Claims
from flip_chassis.database import Connection, Pool, connect
from flip_chassis.database import database as database_of
from flip_chassis.ids import uuid7
from flip_chassis.testing import client, eventually, routes, said, settings_for
from flip_contracts.auth import (
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    Role,
    RoleChanged,
    SessionEnded,
    UserActivated,
    UserInvited,
    email_digest,
)
from flip_contracts.base import SessionId, UserId
from flip_local.testing import Database, Kafka, PostgresServer, Smtp
from pydantic import SecretStr

pytestmark = pytest.mark.parts

ADMIN = "admin@flip.example"
ADMIN_PASSWORD = "Bootstrap-1"
GOOD = "Own-password-1"


@dataclass
class Auth:
    """The running service as people meet it."""

    http: httpx.AsyncClient
    db: Connection
    settings: AuthSettings
    smtp: Smtp
    admin: str = ""
    admin_since: float = -math.inf

    async def renew_admin(self) -> None:
        """Have an admin's token that lasts for a test."""
        if time.monotonic() - self.admin_since > 60:
            self.admin = (await self.log_in(ADMIN, ADMIN_PASSWORD)).json()["access_token"]
            self.admin_since = time.monotonic()

    async def post(self, path: str, token: str = "", cookie: str = "", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if cookie:
            headers["Cookie"] = f"{COOKIE}={cookie}"
        self.http.cookies.clear()
        return await self.http.post(f"/api/auth{path}", json=body, headers=headers)

    async def get(self, path: str, token: str = "", **params: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.get(f"/api/auth{path}", params=params, headers=headers)

    async def log_in(self, email: str, password: str) -> httpx.Response:
        return await self.post("/login", email=email, password=password)

    async def invite(self, role: Role = "researcher") -> tuple[UserId, str]:
        email = f"{uuid7()}@flip.example"
        answer = await self.post("/users", self.admin, email=email, role=role)
        assert answer.status_code == 201, answer.text
        return UserId(UUID(answer.json()["user_id"])), email

    async def mailed_password(self, email: str, mails: int = 1) -> str:
        async def arrived() -> list[dict[str, Any]]:
            found = await asyncio.to_thread(self.smtp.mails, email)
            return found if len(found) >= mails else []

        *_, mail = await eventually(arrived)
        found = re.search(r"one-time password:\s+(\S+)", mail["body"])
        assert found
        return found[1]

    async def join(self, role: Role = "researcher") -> "Person":
        """Somebody who was invited, came, and has a session."""
        user_id, email = await self.invite(role)
        answer = await self.post(
            "/first-login",
            email=email,
            one_time_password=await self.mailed_password(email),
            new_password=GOOD,
        )
        assert answer.status_code == 200, answer.text
        return Person(user_id, email, answer.json()["access_token"], answer.cookies[COOKIE])


@dataclass
class Person:
    user_id: UserId
    email: str
    token: str
    cookie: str


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    with postgres_server.database("auth") as made:
        yield made


@pytest.fixture(scope="module")
def settings(database: Database, kafka: Kafka, smtp: Smtp, tmp_path_factory: pytest.TempPathFactory) -> AuthSettings:
    principal = "service.auth"
    return settings_for(
        AuthSettings,
        database,
        kafka.as_principal(principal),
        kafka.group(principal),
        bootstrap_email=ADMIN,
        bootstrap_password=SecretStr(ADMIN_PASSWORD),
        signing_key=tmp_path_factory.mktemp("keys") / "signing.pem",
        smtp_host=smtp.host,
        smtp_port=smtp.port,
    )


@asynccontextmanager
async def running(settings: AuthSettings, smtp: Smtp) -> AsyncGenerator[Auth]:
    async with client(service(settings)) as http, connect(settings.postgres.get_secret_value()) as db:
        yield Auth(http, db, settings, smtp)


@pytest.fixture(scope="module")
async def service_of_module(settings: AuthSettings, smtp: Smtp) -> AsyncGenerator[Auth]:
    async with running(settings, smtp) as it:
        yield it


@pytest.fixture
async def auth(service_of_module: Auth) -> Auth:
    await service_of_module.renew_admin()
    return service_of_module


# --- the first admin ------------------------------------------------------------------------------------------------


async def test_the_first_admin_is_made_once_and_by_the_service(auth: Auth):
    async with client(service(auth.settings)):
        pass
    first, *others = await auth.db.fetch("SELECT user_id FROM account WHERE email = $1", ADMIN)
    assert not others
    rows = await auth.db.fetch("SELECT type, actor FROM event_log WHERE key = $1 ORDER BY pos", str(first["user_id"]))
    assert [(row["type"], row["actor"]) for row in rows[:2]] == [
        (UserInvited.type_name, "service:hub/auth"),
        (UserActivated.type_name, "service:hub/auth"),
    ]
    assert (await auth.get("/users/me", auth.admin)).json()["role"] == "admin"


async def test_the_signing_key_is_its_owners_alone_and_only_its_public_half_is_published(auth: Auth):
    assert auth.settings.signing_key.stat().st_mode & 0o777 == 0o600
    (key,) = (await auth.get("/jwks.json")).json()["keys"]
    assert key["crv"] == "Ed25519"
    assert "d" not in key


# --- invited --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ACC-1")
async def test_an_invitations_password_works_once_and_forces_a_new_one(auth: Auth):
    user_id, email = await auth.invite("researcher")
    one_time = await auth.mailed_password(email)
    answer = await auth.log_in(email, one_time)
    assert code(answer) == (403, "password-change-required")
    assert answer.json()["first_login"] == "/api/auth/first-login"
    answer = await auth.post("/first-login", email=email, one_time_password=one_time, new_password="weak")
    assert code(answer) == (422, "password-too-weak")
    assert len(answer.json()["rules"]) == 4
    answer = await auth.post("/first-login", email=email, one_time_password=one_time, new_password=GOOD)
    assert answer.status_code == 200
    me = (await auth.get("/users/me", answer.json()["access_token"])).json()
    assert (me["user_id"], me["email"], me["role"], me["status"]) == (str(user_id), email, "researcher", "active")
    assert code(await auth.log_in(email, one_time)) == (401, "login-refused")
    answer = await auth.post("/first-login", email=email, one_time_password=one_time, new_password=GOOD)
    assert code(answer) == (401, "login-refused")
    assert (await auth.log_in(email, GOOD)).status_code == 200


@pytest.mark.requirement("ACC-1")
async def test_an_address_is_invited_once_whatever_its_case(auth: Auth):
    _, email = await auth.invite()
    answer = await auth.post("/users", auth.admin, email=email.upper(), role="viewer")
    assert code(answer) == (409, "address-already-known")
    assert len(await auth.db.fetch("SELECT FROM account WHERE lower(email) = $1", email)) == 1


@pytest.mark.requirement("ACC-1")
async def test_a_second_invitation_voids_the_first(auth: Auth):
    user_id, email = await auth.invite()
    first = await auth.mailed_password(email)
    assert (await auth.post(f"/users/{user_id}/invitation", auth.admin)).status_code == 202
    second = await auth.mailed_password(email, mails=2)
    assert code(await auth.log_in(email, first)) == (401, "login-refused")
    assert code(await auth.log_in(email, second)) == (403, "password-change-required")


async def test_no_event_and_no_sent_mail_keeps_an_address_or_a_password(auth: Auth):
    person = await auth.join()
    one_time = await auth.mailed_password(person.email)
    log = b"".join(row["payload"] for row in await auth.db.fetch("SELECT payload FROM event_log"))
    assert email_digest(person.email).encode() in log
    for secret in (person.email, one_time, GOOD):
        assert secret.encode() not in log

    async def wiped() -> bool:
        rows = await auth.db.fetch("SELECT state, body FROM mail WHERE user_id = $1", person.user_id)
        return [(row["state"], row["body"]) for row in rows] == [("sent", None)]

    await eventually(wiped)
    account = await store.account(auth.db, person.user_id)
    assert account is not None
    assert account.one_time_hash is None
    assert account.password_hash is not None
    assert account.password_hash.startswith("$argon2id$")


# --- logging in -----------------------------------------------------------------------------------------------------


async def test_an_unknown_address_is_answered_like_a_wrong_password(auth: Auth):
    _, email = await auth.invite()
    wrong, unknown = [await auth.log_in(each, "Wrong-pass-1") for each in (email, f"{uuid7()}@flip.example")]
    told = {"type", "title", "status", "code", "detail"}
    assert code(wrong) == (401, "login-refused")
    assert {name: wrong.json()[name] for name in told} == {name: unknown.json()[name] for name in told}
    assert wrong.headers.keys() == unknown.headers.keys()


async def test_logins_are_said_failed_or_succeeded(auth: Auth):
    person = await auth.join()
    await auth.log_in(person.email, "Wrong-pass-1")
    await auth.log_in(person.email, GOOD)
    failed = [event for event in await said(auth.db, LoginFailed) if event.user_id == person.user_id]
    assert [event.reason for event in failed] == ["wrong-password"]
    assert len([event for event in await said(auth.db, LoginSucceeded) if event.user_id == person.user_id]) == 2


@pytest.mark.parametrize("known", [True, False])
async def test_tries_that_come_too_fast_are_put_off_whether_or_not_the_address_is_known(auth: Auth, known: bool):
    email = (await auth.join()).email if known else f"{uuid7()}@flip.example"
    for _ in range(domain.FREE_TRIES):
        assert (await auth.log_in(email, "Wrong-pass-1")).status_code == 401

    async def put_off() -> httpx.Response | None:  # the first pauses may be over before the next try is made
        answer = await auth.log_in(email, "Wrong-pass-1")
        return answer if answer.status_code == 429 else None

    answer = await eventually(put_off)
    assert code(answer) == (429, "too-many-tries")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_refused_field_is_named_and_never_shown(auth: Auth):
    answer = await auth.post("/login", email="no address", password="x" * 300, extra=1)
    assert code(answer) == (422, "request-not-valid")
    assert {each["field"] for each in answer.json()["fields"]} == {"email", "password", "extra"}
    assert "xxx" not in answer.text


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_the_refresh_cookie_is_out_of_scripts_reach(auth: Auth):
    answer = await auth.log_in(ADMIN, ADMIN_PASSWORD)
    cookie = answer.headers["set-cookie"].lower()
    for part in ("httponly", "secure", "samesite=strict", "path=/api/auth"):
        assert part in cookie
    assert answer.headers["cache-control"] == "no-store"


async def test_a_refresh_token_works_once_and_a_second_use_ends_the_session(auth: Auth):
    person = await auth.join()
    fresh = await auth.post("/refresh", cookie=person.cookie)
    assert fresh.status_code == 200
    assert (await auth.get("/users/me", fresh.json()["access_token"])).status_code == 200
    assert code(await auth.post("/refresh", cookie=person.cookie)) == (401, "refresh-token-reused")
    assert code(await auth.post("/refresh", cookie=fresh.cookies[COOKIE])) == (401, "session-ended")
    assert code(await auth.get("/users/me", fresh.json()["access_token"])) == (401, "session-ended")
    ended = [event.reason for event in await said(auth.db, SessionEnded) if event.user_id == person.user_id]
    assert ended == ["refresh-token-reused"]


async def test_of_two_uses_of_a_refresh_token_at_once_one_is_the_reuse(auth: Auth):
    person = await auth.join()
    headers = {"Cookie": f"{COOKIE}={person.cookie}"}
    answers = await asyncio.gather(*[auth.http.post("/api/auth/refresh", headers=headers) for _ in range(6)])
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]


async def test_an_expired_session_is_not_refreshed(auth: Auth):
    person = await auth.join()
    await auth.db.execute("UPDATE session SET expires_at = now() WHERE user_id = $1", person.user_id)
    assert code(await auth.post("/refresh", cookie=person.cookie)) == (401, "session-expired")


async def test_logging_out_ends_the_session_and_its_access_token(auth: Auth):
    person = await auth.join()
    assert (await auth.post("/logout", cookie=person.cookie)).status_code == 204
    assert code(await auth.get("/users/me", person.token)) == (401, "session-ended")
    assert code(await auth.post("/refresh", cookie=person.cookie)) == (401, "session-ended")
    assert (await auth.post("/logout", cookie=person.cookie)).status_code == 204


async def test_a_new_password_ends_every_session_but_the_one_it_opens(auth: Auth):
    person = await auth.join()
    other = await auth.log_in(person.email, GOOD)
    body = {"current_password": "Wrong-pass-1", "new_password": "Another-pass-2"}
    assert code(await auth.post("/password", person.token, **body)) == (403, "password-wrong")
    changed = await auth.post("/password", person.token, current_password=GOOD, new_password="Another-pass-2")
    assert changed.status_code == 200
    for token in (person.token, other.json()["access_token"]):
        assert code(await auth.get("/users/me", token)) == (401, "session-ended")
    assert (await auth.get("/users/me", changed.json()["access_token"])).status_code == 200
    assert code(await auth.log_in(person.email, GOOD)) == (401, "login-refused")
    assert person.user_id in {event.user_id for event in await said(auth.db, PasswordChanged)}


# --- shut out, another role -----------------------------------------------------------------------------------------


@pytest.mark.requirement("ACC-6")
async def test_a_user_who_is_shut_out_is_out_at_once_and_comes_back_only_by_a_new_login(auth: Auth):
    person = await auth.join()
    assert (await auth.post(f"/users/{person.user_id}/disable", auth.admin)).json()["status"] == "disabled"
    assert code(await auth.get("/users/me", person.token)) == (401, "session-ended")
    assert code(await auth.post("/refresh", cookie=person.cookie)) == (401, "session-ended")
    assert code(await auth.log_in(person.email, GOOD)) == (403, "user-disabled")
    assert (await auth.post(f"/users/{person.user_id}/enable", auth.admin)).json()["status"] == "active"
    assert code(await auth.get("/users/me", person.token)) == (401, "session-ended")
    assert (await auth.log_in(person.email, GOOD)).status_code == 200


@pytest.mark.requirement("ACC-6")
async def test_a_change_of_role_holds_at_once_for_a_token_that_is_out_already(auth: Auth):
    person = await auth.join("researcher")
    assert code(await auth.get("/users", person.token)) == (403, "role-not-allowed")
    assert (await auth.post(f"/users/{person.user_id}/role", auth.admin, role="admin")).json()["role"] == "admin"
    assert (await auth.get("/users", person.token)).status_code == 200
    assert RoleChanged(user_id=person.user_id, role="admin") in await said(auth.db, RoleChanged)


async def test_users_are_listed_by_address_and_looked_up_by_id(auth: Auth):
    person = await auth.join()
    page = (await auth.get("/users", auth.admin, keyword=person.email[:30].upper())).json()
    assert [each["email"] for each in page["items"]] == [person.email]
    assert page["total"] == 1
    assert page["items"][0]["last_login_at"] is not None
    answer = await auth.get("/users/lookup", person.token, ids=[str(person.user_id), str(uuid7())])
    assert answer.json() == [{"user_id": str(person.user_id), "email": person.email}]


# --- mail -----------------------------------------------------------------------------------------------------------


class Refusing:
    """A mail server that knows no recipient."""

    async def handle_RCPT(self, server: SMTP, *_: object) -> str:  # noqa: N802 (aiosmtpd's name)
        return "550 no such mailbox"


async def _waiting_mail(db: Connection, settings: AuthSettings) -> tuple[UserId, str]:
    user_id, email = UserId(uuid7()), f"{uuid7()}@flip.example"
    one_time = await invitations.new_one_time(Passwords(), settings)
    async with db.transaction():
        await store.add_account(db, user_id, email, email_digest(email))
        await invitations.send_invitation(db, settings, user_id, email, "viewer", one_time)
    return user_id, email


async def _mail(db: Connection, user_id: UserId) -> tuple[str, bool, int]:
    row = await db.fetchrow("SELECT state, body, attempts FROM mail WHERE user_id = $1", user_id)
    assert row is not None
    return row["state"], row["body"] is not None, row["attempts"]


@pytest.fixture
async def mailing(
    postgres: Database, kafka: Kafka, settings: AuthSettings
) -> AsyncGenerator[tuple[Pool, AuthSettings]]:
    """A database of its own, so that no other postman sends the mails."""
    own = settings.model_copy(update={"postgres": SecretStr(postgres.app), "postgres_owner": SecretStr(postgres.owner)})
    async with database_of(own, MIGRATIONS) as pool:
        yield pool, own


async def test_a_mail_waits_while_the_mail_server_is_away_and_arrives_when_it_is_back(
    mailing: tuple[Pool, AuthSettings], smtp: Smtp
):
    pool, settings = mailing
    async with pool.acquire() as db:
        user_id, email = await _waiting_mail(db, settings)
        assert await Postman(pool, settings.model_copy(update={"smtp_port": 1})).send_next()
        assert await _mail(db, user_id) == ("waiting", True, 1)
        await db.execute("UPDATE mail SET not_before = now()")
        assert await Postman(pool, settings).send_next()
        assert await _mail(db, user_id) == ("sent", False, 2)
    assert len(await asyncio.to_thread(smtp.mails, email)) == 1


async def test_a_mail_to_an_address_that_its_server_refuses_is_given_up_and_wiped(mailing: tuple[Pool, AuthSettings]):
    pool, settings = mailing
    server = Controller(Refusing(), hostname="127.0.0.1", port=29650)
    server.start()
    try:
        async with pool.acquire() as db:
            user_id, _ = await _waiting_mail(db, settings)
            assert await Postman(pool, settings.model_copy(update={"smtp_port": 29650})).send_next()
            assert await _mail(db, user_id) == ("undeliverable", False, 1)
    finally:
        server.stop()


# --- ACC-5 ----------------------------------------------------------------------------------------------------------

EVERYONE, USERS, ADMINS = "everyone", "users", "admins"
MAY = {
    "GET /jwks.json": EVERYONE,
    "POST /login": EVERYONE,
    "POST /first-login": EVERYONE,
    "POST /refresh": EVERYONE,
    "POST /logout": EVERYONE,
    "POST /password": USERS,
    "POST /users": ADMINS,
    "GET /users": ADMINS,
    "GET /users/me": USERS,
    "GET /users/lookup": USERS,
    "POST /users/{user_id}/invitation": ADMINS,
    "POST /users/{user_id}/role": ADMINS,
    "POST /users/{user_id}/disable": ADMINS,
    "POST /users/{user_id}/enable": ADMINS,
}


@pytest.mark.requirement("ACC-5")
async def test_every_route_states_who_may_use_it(auth: Auth):
    assert await routes(auth.http, "auth") == MAY.keys()


@pytest.mark.requirement("ACC-4")
@pytest.mark.requirement("ACC-5")
async def test_every_route_admits_exactly_whom_it_should(auth: Auth):
    expired_claims = Claims(UserId(uuid7()), SessionId(uuid7()), 1)
    tokens = {
        "nobody": "",
        "expired": SigningKey.of(auth.settings.signing_key).access_token(
            expired_claims, datetime(2020, 1, 1, tzinfo=UTC)
        ),
        "forged": SigningKey.of(Path(str(auth.settings.signing_key) + ".other")).access_token(
            expired_claims, datetime.now(UTC)
        ),
        "viewer": (await auth.join("viewer")).token,
        "researcher": (await auth.join("researcher")).token,
        "admin": auth.admin,
    }
    for route, may in MAY.items():
        method, path = route.split()
        for who, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = await auth.http.request(
                method, f"/api/auth{path.format(user_id=uuid7())}", headers=headers, json={}
            )
            if may == EVERYONE:
                expected = answer.status_code not in {403, 404}
            elif who in {"nobody", "expired", "forged"}:
                expected = answer.status_code == 401
            elif may == ADMINS and who != "admin":
                expected = code(answer) == (403, "role-not-allowed")
            else:
                expected = answer.status_code not in {401, 403}
            assert expected, f"{who} asked {route} and got {answer.status_code}: {answer.text}"
