"""The SQL of the auth service."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from flip_chassis.database import Connection, Row
from flip_contracts.auth import Role
from flip_contracts.base import SessionId, Sha256, UserId

# --- accounts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """A user's address and what proves who they are."""

    user_id: UserId
    email: str
    email_digest: Sha256
    password_hash: str | None
    one_time_hash: str | None
    one_time_expires_at: datetime | None


async def add_account(db: Connection, user_id: UserId, email: str, digest: Sha256) -> bool:
    """Keep a new address. False where it is taken."""
    added = await db.fetchval(
        "INSERT INTO account (user_id, email, email_digest) VALUES ($1, $2, $3)"
        " ON CONFLICT (email_digest) DO NOTHING RETURNING true",
        user_id,
        email,
        digest,
    )
    return bool(added)


async def account_by_address(db: Connection, digest: Sha256) -> Account | None:
    """The account of an address."""
    return _account(await db.fetchrow("SELECT * FROM account WHERE email_digest = $1", digest))


async def account(db: Connection, user_id: UserId) -> Account | None:
    """The account of a user."""
    return _account(await db.fetchrow("SELECT * FROM account WHERE user_id = $1", user_id))


def _account(row: Row | None) -> Account | None:
    return None if row is None else Account(**row)


async def set_one_time_password(db: Connection, user_id: UserId, kept: str, expires_at: datetime) -> None:
    """Only this one-time password works from now on."""
    await db.execute(
        "UPDATE account SET one_time_hash = $2, one_time_expires_at = $3 WHERE user_id = $1", user_id, kept, expires_at
    )


async def set_password(db: Connection, user_id: UserId, kept: str) -> None:
    """Only this password works from now on."""
    await db.execute(
        "UPDATE account SET password_hash = $2, one_time_hash = NULL, one_time_expires_at = NULL WHERE user_id = $1",
        user_id,
        kept,
    )


async def any_account(db: Connection) -> bool:
    """Whether there is a user."""
    return await db.fetchval("SELECT EXISTS (SELECT FROM account)")


async def lock_accounts(db: Connection) -> None:
    """Be the only one who makes the first user, until the transaction ends."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('flip.auth.bootstrap', 0))")


# --- tries --------------------------------------------------------------------------------------------------------


async def forget_tries(db: Connection, before: datetime) -> None:
    """Tries older than this no longer count."""
    await db.execute("DELETE FROM login_try WHERE at < $1", before)


async def count_try(db: Connection, who: bytes, now: datetime) -> int | None:
    """Count a try, locking the count until the transaction ends. None where it comes too early."""
    return await db.fetchval(
        "INSERT INTO login_try (who, tries, at, not_before) VALUES ($1, 1, $2, $2)"
        " ON CONFLICT (who) DO UPDATE SET tries = login_try.tries + 1, at = $2 WHERE login_try.not_before <= $2"
        " RETURNING tries",
        who,
        now,
    )


async def pause_tries(db: Connection, who: bytes, until: datetime) -> None:
    """The next try must wait."""
    await db.execute("UPDATE login_try SET not_before = $2 WHERE who = $1", who, until)


async def paused_until(db: Connection, who: bytes) -> datetime:
    """When the next try may come."""
    return await db.fetchval("SELECT not_before FROM login_try WHERE who = $1", who)


async def clear_tries(db: Connection, who: bytes) -> None:
    """They have shown who they are."""
    await db.execute("DELETE FROM login_try WHERE who = $1", who)


# --- sessions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Presented:
    """A refresh token that was shown, and the session it belongs to."""

    user_id: UserId
    session_id: SessionId
    expires_at: datetime
    used: bool


async def add_session(db: Connection, user_id: UserId, session_id: SessionId, expires_at: datetime) -> None:
    """Keep a new session."""
    await db.execute(
        "INSERT INTO session (session_id, user_id, expires_at) VALUES ($1, $2, $3)", session_id, user_id, expires_at
    )


async def add_refresh_token(db: Connection, session_id: SessionId, kept: bytes) -> None:
    """The token that the session can be refreshed with next."""
    await db.execute("INSERT INTO refresh_token (token_hash, session_id) VALUES ($1, $2)", kept, session_id)


async def presented(db: Connection, kept: bytes) -> Presented | None:
    """What a refresh token stands for; its session is locked until the transaction ends."""
    session = await db.fetchrow(
        "SELECT user_id, session_id, expires_at FROM session"
        " WHERE session_id = (SELECT session_id FROM refresh_token WHERE token_hash = $1)"
        " AND NOT EXISTS (SELECT FROM ended_session e WHERE e.session_id = session.session_id) FOR UPDATE",
        kept,
    )
    if session is None:
        return None
    # Read under the lock: another use of the same token may just have ended.
    used = await db.fetchval("SELECT used FROM refresh_token WHERE token_hash = $1", kept)
    return Presented(**session, used=used)


async def use_refresh_token(db: Connection, kept: bytes) -> None:
    """The token is spent."""
    await db.execute("UPDATE refresh_token SET used = true WHERE token_hash = $1", kept)


async def forget_ended_sessions(db: Connection, now: datetime) -> None:
    """Sessions that nothing can refresh any more, and their tokens, needn't be kept."""
    await db.execute(
        "DELETE FROM session s WHERE expires_at < $1"
        " OR EXISTS (SELECT FROM ended_session e WHERE e.session_id = s.session_id)",
        now,
    )


# --- mail ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that waits to be sent. `attempts` counts this one too."""

    mail_id: UUID
    email: str
    subject: str
    body: str
    attempts: int
    give_up_at: datetime


async def post_mail(
    db: Connection, mail_id: UUID, user_id: UserId, subject: str, body: str, give_up_at: datetime
) -> None:
    """Have a mail sent to the user; earlier ones that wait are not sent any more."""
    await db.execute(
        "UPDATE mail SET state = 'undeliverable', body = NULL WHERE user_id = $1 AND state = 'waiting'", user_id
    )
    await db.execute(
        "INSERT INTO mail (mail_id, user_id, subject, body, give_up_at) VALUES ($1, $2, $3, $4, $5)",
        mail_id,
        user_id,
        subject,
        body,
        give_up_at,
    )


async def claim_mail(db: Connection, now: datetime, lease_until: datetime) -> Mail | None:
    """A mail to send, ours until the lease is over."""
    row = await db.fetchrow(
        "UPDATE mail m SET attempts = attempts + 1, not_before = $2 FROM account a"
        " WHERE a.user_id = m.user_id AND mail_id = ("
        " SELECT mail_id FROM mail WHERE state = 'waiting' AND not_before <= $1 ORDER BY not_before LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING mail_id, a.email, subject, body, attempts, give_up_at",
        now,
        lease_until,
    )
    return None if row is None else Mail(**row)


async def close_mail(db: Connection, mail_id: UUID, state: str) -> None:
    """The mail is `sent` or `undeliverable`; its text is wiped."""
    await db.execute("UPDATE mail SET state = $2, body = NULL WHERE mail_id = $1", mail_id, state)


async def put_off_mail(db: Connection, mail_id: UUID, until: datetime) -> None:
    """Try again later."""
    await db.execute("UPDATE mail SET not_before = $2 WHERE mail_id = $1", mail_id, until)


# --- people -------------------------------------------------------------------------------------------------------

_PERSON = """
SELECT user_id, email, role, status, invited_at, last_login_at,
    (SELECT state FROM mail WHERE mail.user_id = person.user_id ORDER BY mail_id DESC LIMIT 1) AS invitation
FROM person JOIN account USING (user_id)
"""


async def person(db: Connection, user_id: UserId) -> Row | None:
    """A user with their address."""
    return await db.fetchrow(f"{_PERSON} WHERE user_id = $1", user_id)


async def people(db: Connection, keyword: str, size: int, offset: int) -> list[Row]:
    """A page of users by address; `keyword` is looked for in the address."""
    return await db.fetch(
        f"{_PERSON} WHERE position(lower($1) in lower(email)) > 0 ORDER BY lower(email) LIMIT $2 OFFSET $3",
        keyword,
        size,
        offset,
    )


async def count_people(db: Connection, keyword: str) -> int:
    """How many users such a list has."""
    return await db.fetchval(
        "SELECT count(*) FROM person JOIN account USING (user_id) WHERE position(lower($1) in lower(email)) > 0",
        keyword,
    )


async def addresses(db: Connection, ids: Sequence[UserId]) -> list[Row]:
    """The addresses of these users, as far as there are such."""
    return await db.fetch("SELECT user_id, email FROM account WHERE user_id = ANY ($1) ORDER BY email", list(ids))


async def keep_invited(db: Connection, user_id: UserId, role: Role, at: datetime) -> None:
    """Somebody was invited, or invited again."""
    await db.execute(
        "INSERT INTO person (user_id, role, status, invited_at) VALUES ($1, $2, 'invited', $3)"
        " ON CONFLICT (user_id) DO UPDATE SET invited_at = $3",
        user_id,
        role,
        at,
    )


async def keep_activated(db: Connection, user_id: UserId) -> None:
    """The user has come."""
    await db.execute("UPDATE person SET status = 'active', activated = true WHERE user_id = $1", user_id)


async def keep_disabled(db: Connection, user_id: UserId) -> None:
    """The user is shut out."""
    await db.execute("UPDATE person SET status = 'disabled' WHERE user_id = $1", user_id)


async def keep_enabled(db: Connection, user_id: UserId) -> None:
    """The user is let in again, as far as they had come."""
    await db.execute(
        "UPDATE person SET status = CASE WHEN activated THEN 'active' ELSE 'invited' END WHERE user_id = $1", user_id
    )


async def keep_role(db: Connection, user_id: UserId, role: Role) -> None:
    """The user has another role."""
    await db.execute("UPDATE person SET role = $2 WHERE user_id = $1", user_id, role)


async def keep_login(db: Connection, user_id: UserId, at: datetime) -> None:
    """The user logged in."""
    await db.execute("UPDATE person SET last_login_at = $2 WHERE user_id = $1", user_id, at)
