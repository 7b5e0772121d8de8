"""Who comes in: passwords checked, sessions opened, refreshed and ended.

What an attacker can see of a refused login is the same whether the address is known or not: the answer, the time it
takes, and the pause that further tries meet. No database connection is held while a password is checked.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from flip_chassis.access import Actor, Claims
from flip_chassis.http import Context
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, last_version
from flip_chassis.refusal import Forbidden, Refused, Throttled, Unauthenticated
from flip_chassis.telemetry import traceparent
from flip_chassis.work import Recorder, Work
from flip_contracts.auth import email_digest
from flip_contracts.base import ReasonCode, SessionId, Sha256, UserId
from flip_contracts.topics import USER

from flip_auth import domain, store
from flip_auth.passwords import Passwords
from flip_auth.settings import AuthSettings
from flip_auth.tokens import SigningKey, refresh_token, token_hash

_REFUSAL_TAKES_S = 0.3
FIRST_LOGIN = "/api/auth/first-login"


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, and its id."""

    host: str
    request_id: UUID


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, with the tokens that prove it. The refresh token works once."""

    user_id: UserId
    access_token: str
    refresh_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Door:
    """Lets people in and out."""

    context: Context
    settings: AuthSettings
    passwords: Passwords
    key: SigningKey

    async def log_in(self, email: str, password: str, caller: Caller) -> Opened:
        """Open a session with the user's own password."""
        began = time.monotonic()
        try:
            return await self._enter(email, password, None, caller)
        except Refused:
            await _take_until(began + _REFUSAL_TAKES_S)
            raise

    async def first_log_in(self, email: str, one_time_password: str, new_password: str, caller: Caller) -> Opened:
        """Set the user's own password by the one-time password, and open a session (ACC-1)."""
        domain.check_password(new_password)
        began = time.monotonic()
        try:
            return await self._enter(email, one_time_password, new_password, caller)
        except Refused:
            await _take_until(began + _REFUSAL_TAKES_S)
            raise

    async def _enter(self, email: str, password: str, new_password: str | None, caller: Caller) -> Opened:
        who = _who(email_digest(email), caller)
        account = await self._admit_try(who, email_digest(email))
        proof = await self._proof(account, password)
        if account is None:
            raise _shut_out("wrong-password")
        kept = None if new_password is None else await self.passwords.hash(new_password)
        session = _NewSession(account.user_id, datetime.now(UTC) + timedelta(hours=self.settings.session_hours))
        actor = "anonymous" if proof == "none" else f"user:{account.user_id}"
        async with self._work(actor, caller) as work, work.on(domain.USER_AGGREGATE, account.user_id) as user:
            if await store.account(work.db, account.user_id) != account:
                raise _shut_out("wrong-password")  # the password was changed while it was checked
            failed = domain.refuse_login(user.state, account.user_id, proof)
            if failed:
                user.record(failed)
            else:
                await store.clear_tries(work.db, who)
                await self._open(work, user, session, proof, kept)
        if failed:
            raise _shut_out(failed.reason)
        return self._opened(session, _version(work, account.user_id))

    async def _open(
        self, work: Work, user: Recorder[domain.User], session: "_NewSession", proof: domain.Proof, kept: str | None
    ) -> None:
        if kept is not None:
            user.record(*domain.activate(user.state, session.user_id, session.session_id))
            await store.set_password(work.db, session.user_id, kept)
        elif proof == "one-time-password":
            raise Forbidden(
                "password-change-required", f"Set a password of your own: POST {FIRST_LOGIN}.", first_login=FIRST_LOGIN
            )
        else:
            user.record(*domain.open_session(user.state, session.user_id, session.session_id))
        await session.keep(work)

    async def change_password(self, actor: Actor, current: str, new_password: str, caller: Caller) -> Opened:
        """Replace the password; every session ends, and one is opened."""
        domain.check_password(new_password)
        async with self.context.pool.acquire() as db:
            account = await store.account(db, actor.user_id)
        assert account is not None
        who = _who(account.email_digest, caller)
        await self._admit_try(who, account.email_digest)
        if not await self.passwords.matches(account.password_hash, current):
            raise Forbidden("password-wrong", "The current password is another one.", field="current_password")
        kept = await self.passwords.hash(new_password)
        session = _NewSession(account.user_id, datetime.now(UTC) + timedelta(hours=self.settings.session_hours))
        async with self._work(str(actor), caller) as work, work.on(domain.USER_AGGREGATE, actor.user_id) as user:
            user.record(*domain.change_password(user.state, actor.user_id, session.session_id))
            await store.set_password(work.db, actor.user_id, kept)
            await store.clear_tries(work.db, who)
            await session.keep(work)
        return self._opened(session, _version(work, actor.user_id))

    async def refresh(self, token: str, caller: Caller) -> Opened:
        """New tokens for a session that goes on. A token that comes twice was stolen once: the session ends."""
        kept = token_hash(token)
        async with self._work("anonymous", caller) as work:
            async with work.db.transaction():
                shown = await store.presented(work.db, kept)
                if shown is None:
                    raise Unauthenticated("session-ended", "Log in again.")
                if not shown.used and shown.expires_at > datetime.now(UTC):
                    return await self._go_on(work, shown, kept)
            reason = "refresh-token-reused" if shown.used else "session-expired"
            await _end(work, shown, reason)
        raise Unauthenticated(reason, "The session has ended. Log in again.")

    async def _go_on(self, work: Work, shown: store.Presented, kept: bytes) -> Opened:
        session = _NewSession(shown.user_id, shown.expires_at, shown.session_id)
        await store.use_refresh_token(work.db, kept)
        await store.add_refresh_token(work.db, session.session_id, token_hash(session.refresh_token))
        return self._opened(session, await last_version(work.db, USER.name, str(shown.user_id)))

    async def log_out(self, token: str, caller: Caller) -> None:
        """End the session that the token belongs to; where there is none, it has ended already."""
        async with self.context.pool.acquire() as db, db.transaction():
            shown = await store.presented(db, token_hash(token))
        if shown is not None:
            async with self._work(f"user:{shown.user_id}", caller) as work:
                await _end(work, shown, "logged-out")

    # --- parts ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _work(self, actor: str, caller: Caller) -> AsyncGenerator[Work]:
        """Work that leaves no `Flip-Version` in the answer: it would tell a known address from an unknown one."""
        cause = Cause(actor, datetime.now(UTC), caller.request_id, traceparent=traceparent())
        async with self.context.pool.acquire() as db:
            yield Work(self.context.settings, db, cause, self.context.handlers.project)
        self.context.relay.wake.set()

    async def _admit_try(self, who: bytes, digest: Sha256) -> store.Account | None:
        """Count a try and answer the account. Raises Throttled where tries come too fast."""
        now = datetime.now(UTC)
        async with self.context.pool.acquire() as db, db.transaction():
            await store.forget_tries(db, now - domain.FORGET_TRIES)
            await store.forget_ended_sessions(db, now)
            tries = await store.count_try(db, who, now)
            if tries is None:
                wait_s = max(1, round((await store.paused_until(db, who) - now).total_seconds() + 0.5))
                raise Throttled("too-many-tries", "Too many tries; wait before the next.", retry_after_s=wait_s)
            await store.pause_tries(db, who, now + domain.pause_after(tries))
            return await store.account_by_address(db, digest)

    async def _proof(self, account: store.Account | None, password: str) -> domain.Proof:
        kept = (account.password_hash or account.one_time_hash) if account else None
        if not await self.passwords.matches(kept, password) or account is None:
            return "none"
        if account.one_time_expires_at is None:
            return "password"
        return "one-time-password" if account.one_time_expires_at > datetime.now(UTC) else "one-time-password-expired"

    def _opened(self, session: "_NewSession", version: int) -> Opened:
        claims = Claims(session.user_id, session.session_id, version)
        access = self.key.access_token(claims, datetime.now(UTC))
        return Opened(session.user_id, access, session.refresh_token, session.expires_at)


class _NewSession:
    """A session with a refresh token that nobody has been given yet."""

    def __init__(self, user_id: UserId, expires_at: datetime, session_id: SessionId | None = None) -> None:
        self.user_id = user_id
        self.expires_at = expires_at
        self.session_id = session_id or SessionId(uuid7())
        self.refresh_token = refresh_token()

    async def keep(self, work: Work) -> None:
        await store.add_session(work.db, self.user_id, self.session_id, self.expires_at)
        await store.add_refresh_token(work.db, self.session_id, token_hash(self.refresh_token))


async def _end(work: Work, shown: store.Presented, reason: ReasonCode) -> None:
    async with work.on(domain.USER_AGGREGATE, shown.user_id) as user:
        user.record(*domain.end_session(user.state, shown.user_id, shown.session_id, reason))


def _version(work: Work, user_id: UserId) -> int:
    return work.written[f"{USER.name}/{user_id}"]


def _who(digest: Sha256, caller: Caller) -> bytes:
    return sha256(f"{caller.host} {digest}".encode()).digest()


def _shut_out(reason: ReasonCode) -> Refused:
    match reason:
        case "user-disabled":
            return Forbidden(reason, "An admin has shut this user out.")
        case "one-time-password-expired":
            return Forbidden(reason, "Ask an admin for another invitation.")
        case _:
            return Unauthenticated("login-refused", "The address or the password is wrong.")


async def _take_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
