"""Invitations: a one-time password, kept as a hash and in a mail until that is sent; and who sends such mails."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import aiosmtplib
from flip_chassis.database import UNREACHABLE, Connection, Pool
from flip_chassis.ids import uuid7
from flip_chassis.telemetry import log
from flip_contracts.auth import Role
from flip_contracts.base import UserId

from flip_auth import store
from flip_auth.passwords import Passwords, one_time_password
from flip_auth.settings import AuthSettings

_TIMEOUT_S = 30
_LEASE = timedelta(minutes=2)
_FIRST_RETRY = timedelta(seconds=5)
_LONGEST_RETRY = timedelta(minutes=15)
_LOOK_AGAIN_S = 1.0

_SUBJECT = "Your invitation to FLIP"
_BODY = """\
You are invited to FLIP, as {role}.

Open {gateway} and log in with
  address:            {email}
  one-time password:  {password}

It works until {until}. You will be asked for a password of your own.
"""


@dataclass(frozen=True, slots=True)
class OneTime:
    """A new one-time password, with what is kept of it."""

    password: str
    kept: str
    expires_at: datetime


async def new_one_time(passwords: Passwords, settings: AuthSettings) -> OneTime:
    """A one-time password that nobody has been told yet."""
    password = one_time_password()
    expires_at = datetime.now(UTC) + timedelta(days=settings.invitation_days)
    return OneTime(password, await passwords.hash(password), expires_at)


async def send_invitation(
    db: Connection, settings: AuthSettings, user_id: UserId, email: str, role: Role, one_time: OneTime
) -> None:
    """Make this one-time password the user's and have it mailed, in the transaction that `db` is in."""
    body = _BODY.format(
        role=role,
        gateway=settings.gateway_url or "FLIP",
        email=email,
        password=one_time.password,
        until=f"{one_time.expires_at:%d %B %Y %H:%M} UTC",
    )
    await store.set_one_time_password(db, user_id, one_time.kept, one_time.expires_at)
    await store.post_mail(db, uuid7(), user_id, _SUBJECT, body, one_time.expires_at)


def retry_after(attempts: int) -> timedelta:
    """How long a mail waits after so many attempts: doubling from 5 s to 15 min."""
    return min(_FIRST_RETRY * 2 ** min(attempts - 1, 16), _LONGEST_RETRY)


@dataclass(slots=True)
class Postman:
    """Sends the mails that wait, each at least once: one that was sent as the process died is sent again."""

    pool: Pool
    settings: AuthSettings
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send what is due, and wait for more."""
        while True:
            self.wake.clear()
            try:
                while await self.send_next():
                    pass
            except UNREACHABLE as error:
                log.warning("Postgres is away; mails wait", reason=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self.wake.wait()

    async def send_next(self) -> bool:
        """Send one mail. Answers whether there was one."""
        now = datetime.now(UTC)
        async with self.pool.acquire() as db:
            mail = await store.claim_mail(db, now, now + _LEASE)
        if mail is None:
            return False
        state = "undeliverable" if mail.give_up_at < now else await self._send(mail)
        async with self.pool.acquire() as db:
            if state is None:
                await store.put_off_mail(db, mail.mail_id, now + retry_after(mail.attempts))
            else:
                await store.close_mail(db, mail.mail_id, state)
        return True

    async def _send(self, mail: store.Mail) -> str | None:
        """The mail's new state, or None where it should be tried again. An error's text may hold the address."""
        try:
            await self._hand_over(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = sorted({each.code for each in error.recipients})
            log.warning("the mail server refuses the address", mail=str(mail.mail_id), codes=codes)
            return "undeliverable" if codes[0] >= 500 else None
        except (aiosmtplib.SMTPException, OSError) as error:
            log.warning("a mail waits", mail=str(mail.mail_id), attempts=mail.attempts, reason=type(error).__name__)
            return None
        return "sent"

    async def _hand_over(self, mail: store.Mail) -> None:
        message = EmailMessage()
        message["From"] = self.settings.smtp_sender
        message["To"] = mail.email
        message["Subject"] = mail.subject
        message["Message-ID"] = f"<{mail.mail_id}@flip>"
        message.set_content(mail.body)
        password = self.settings.smtp_password
        await aiosmtplib.send(
            message,
            hostname=self.settings.smtp_host,
            port=self.settings.smtp_port,
            use_tls=self.settings.smtp_security == "tls",
            start_tls=self.settings.smtp_security == "starttls",
            username=self.settings.smtp_user,
            password=password.get_secret_value() if password else None,
            timeout=_TIMEOUT_S,
        )
