"""A TCP proxy that cuts, slows, freezes and refuses what goes through it."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for 0 s. Closing then sends RST and drops what is on its way."""


class FaultProxy:
    """Passes connections to `port` on 127.0.0.1 on to `to_port`, as well as it is let."""

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self._to_port = to_port
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._delay_s = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for writers in self._links:
            for writer in writers:
                end = writer.get_extra_info("socket")
                if end.fileno() >= 0:  # else this end is closed already, and what the other one said is still held
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

    @asynccontextmanager
    async def slow(self, delay_s: float) -> AsyncGenerator[None]:
        """Hold every chunk of data back for `delay_s`."""
        self._delay_s = delay_s
        try:
            yield
        finally:
            self._delay_s = 0.0

    @asynccontextmanager
    async def frozen(self) -> AsyncGenerator[None]:
        """Let nothing through, and close nothing."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @asynccontextmanager
    async def refusing(self) -> AsyncGenerator[None]:
        """Reset every connection and every attempt to make one."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["FaultProxy"]:
        """Listen while the block lasts."""
        server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._flows.set()
            self.cut()
            await server.wait_closed()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        link = writer, far_writer
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
        finally:
            self._links.discard(link)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one direction on until either end closes; then the other end is closed too."""
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                writer.write(chunk)
                await writer.drain()
        writer.close()
