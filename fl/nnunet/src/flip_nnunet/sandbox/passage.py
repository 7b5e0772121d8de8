"""The one way out of a box: connections to one port of its 127.0.0.1 go on to the same port of this machine's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

_CHUNK_BYTES = 256 * 1024
_MOST_CONNECTIONS = 64


def open_passage(handover: socket.socket, port: int | None) -> None:
    """Carry connections until this process ends, in a thread of its own.

    The socket that listens inside the box comes over `handover`; if none comes, the box has ended. Without a `port`
    there is nothing to carry.
    """
    if port is None:
        handover.close()
        return
    threading.Thread(target=_carry, args=(handover, port), name="passage", daemon=True).start()


def _carry(handover: socket.socket, port: int) -> None:
    with handover:
        _, descriptors, _, _ = socket.recv_fds(handover, 1, 1)
    for descriptor in descriptors:
        asyncio.run(_serve(socket.socket(fileno=descriptor), port))


async def _serve(inside: socket.socket, port: int) -> None:
    open_connections = asyncio.Semaphore(_MOST_CONNECTIONS)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            async with open_connections:
                await _join(reader, writer, port)

    server = await asyncio.start_server(carry, sock=inside)
    await server.serve_forever()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(out_writer):
        ways = [asyncio.ensure_future(_copy(reader, out_writer)), asyncio.ensure_future(_copy(out_reader, writer))]
        await asyncio.gather(*ways)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
