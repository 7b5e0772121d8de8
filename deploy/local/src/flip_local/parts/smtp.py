"""An SMTP server that delivers nothing and shows every mail that it was sent as JSON: `GET /`, newest last."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import sys
from datetime import UTC, datetime
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, Envelope, Session

from flip_local.layout import Layout
from flip_local.part import HttpProbe, Part
from flip_local.task import task


def parts(layout: Layout) -> list[Part]:
    """The mail sink."""
    smtp, mails = layout.port("smtp"), layout.port("smtp-mails")
    return [
        Part(
            name="smtp",
            command=task("flip_local.parts.smtp", str(smtp), str(mails)),
            ready=HttpProbe(f"http://127.0.0.1:{mails}/"),
            ports=(smtp, mails),
        )
    ]


class Mailbox:
    """The mails of this run, in the order in which they came; aiosmtpd's handler."""

    def __init__(self) -> None:
        self.mails: list[dict[str, object]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        message = email.message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        body = message.get_body(("plain", "html"))
        self.mails.append(
            {
                "received": datetime.now(UTC).isoformat(),
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": message["subject"],
                "body": body.get_content().replace("\r\n", "\n") if body is not None else "",
            }
        )
        return "250 OK"


async def serve(smtp_port: int, mails_port: int) -> None:
    """Take mails on one port and show them on the other, for ever."""
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    taking = await loop.create_server(lambda: SMTP(mailbox, enable_SMTPUTF8=True), "127.0.0.1", smtp_port)

    async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readline()).strip():
            pass
        body = json.dumps(mailbox.mails).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    showing = await asyncio.start_server(show, "127.0.0.1", mails_port)
    await asyncio.gather(taking.serve_forever(), showing.serve_forever())


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
