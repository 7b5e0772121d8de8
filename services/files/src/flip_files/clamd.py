"""ClamAV's daemon, asked over TCP with its INSTREAM command (clamd(8)).

The stream is the command `zINSTREAM\\0`, then chunks, each behind its length in 4 bytes big-endian, then a length of 0.
The daemon closes the connection when a limit of its own is passed: what is not a clear answer counts as not scanned.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_ANSWER_S = 600.0
_CONNECT_S = 10.0


class NotScanned(Exception):
    """The scanner gave no clear answer; nothing is known of the object."""


@dataclass(frozen=True, slots=True)
class Clamd:
    """A daemon at an address."""

    host: str
    port: int

    async def version(self) -> tuple[str, str]:
        """Engine and signatures, such as `ClamAV 1.4.6` and `27500`; `local` where only own signatures are loaded."""
        async with self._asking(b"zVERSION\0") as (reader, _):
            engine, _, signatures = (await self._answer(reader)).partition("/")
        return engine, signatures or "local"

    async def scan(self, chunks: AsyncIterator[bytes]) -> str | None:
        """The name of what was found, or None where the object is clean. Raises NotScanned."""
        async with self._asking(b"zINSTREAM\0") as (reader, writer):
            async for chunk in chunks:
                writer.write(len(chunk).to_bytes(4, "big") + chunk)
                await writer.drain()
            writer.write(bytes(4))
            await writer.drain()
            answer = await self._answer(reader)
        text = answer.removeprefix("stream: ")
        if text == "OK":
            return None
        if text.endswith(" FOUND"):
            return text.removesuffix(" FOUND")
        raise NotScanned(text)

    @asynccontextmanager
    async def _asking(self, command: bytes) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, TimeoutError) as error:
            raise NotScanned("the scanner is down") from error
        try:
            writer.write(command)
            yield reader, writer
        except OSError as error:
            raise NotScanned("the scanner closed the connection") from error
        finally:
            writer.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> str:
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await reader.readuntil(b"\0")
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            raise NotScanned("the scanner gave no answer") from error
        return answer[:-1].decode(errors="replace")
