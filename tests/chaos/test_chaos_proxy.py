"""The fault proxy passes bytes on unchanged, and does each thing that it is told to do to them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from .proxy import FaultProxy

DEADLINE_S = 30
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def echo() -> AsyncGenerator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def proxy(echo: int) -> AsyncGenerator[FaultProxy]:
    async with FaultProxy(0, echo).serving() as proxy:
        yield proxy


async def connected(proxy: FaultProxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def says(streams: Streams, text: bytes) -> bytes:
    reader, writer = streams
    writer.write(text)
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readexactly(len(text))


async def test_what_is_said_comes_through_unchanged(proxy: FaultProxy):
    streams = await connected(proxy)
    text = bytes(range(256)) * 1000
    assert await says(streams, text) == text


async def test_a_cut_resets_a_connection_and_a_new_one_works(proxy: FaultProxy):
    reader, writer = streams = await connected(proxy)
    await says(streams, b"there")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(DEADLINE_S):
            await reader.readexactly(1)
    writer.close()
    assert await says(await connected(proxy), b"again") == b"again"


async def test_a_cut_takes_a_connection_whose_far_end_has_hung_up_while_it_was_frozen():
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", 0) as server,
        FaultProxy(0, server.sockets[0].getsockname()[1]).serving() as proxy,
        proxy.frozen(),
        asyncio.timeout(DEADLINE_S),
    ):
        reader, writer = await connected(proxy)
        writer.write(b"held")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        proxy.cut()
        writer.close()


async def test_while_it_is_frozen_nothing_comes_through_and_nothing_is_lost(proxy: FaultProxy):
    streams = await connected(proxy)
    await says(streams, b"before")
    async with proxy.frozen():
        answer = asyncio.create_task(says(streams, b"during"))
        assert not (await asyncio.wait([answer], timeout=0.2))[0]
    assert await answer == b"during"


async def test_while_it_is_slow_every_chunk_is_held_back(proxy: FaultProxy):
    streams = await connected(proxy)
    started = asyncio.get_running_loop().time()
    async with proxy.slow(0.1):
        await says(streams, b"slowly")
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_while_it_refuses_no_connection_holds(proxy: FaultProxy):
    async with proxy.refusing():
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await says(await connected(proxy), b"anyone?")
    assert await says(await connected(proxy), b"back") == b"back"
