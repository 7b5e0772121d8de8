"""The way of one Trust to the servers of the nets: through proxies, which a case can stop."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager

from flip_local.layout import Layout

from tests.chaos.proxy import FaultProxy


class Ways:
    """By net, the proxy through which the forwarded Trust reaches its server. They work in a thread of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxies: Mapping[str, FaultProxy]) -> None:
        self._loop = loop
        self._proxies = proxies

    def cut(self, net: str, seconds: float) -> "Future[None]":
        """Let nothing through for so long, and close nothing, as if a cable were out. Returns at once."""
        return asyncio.run_coroutine_threadsafe(self._cut(self._proxies[net], seconds), self._loop)

    async def _cut(self, proxy: FaultProxy, seconds: float) -> None:
        async with proxy.frozen():
            await asyncio.sleep(seconds)


@contextmanager
def ways(layout: Layout) -> Iterator[Ways]:
    """The proxies while the block lasts."""
    proxies = {
        net.name: FaultProxy(layout.port(f"{net.name}-fl-forwarded"), layout.port(f"{net.name}-fl"))
        for net in layout.nets
    }
    loop = asyncio.new_event_loop()
    ready, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for proxy in proxies.values():
                await stack.enter_async_context(proxy.serving())
            ready.set()
            await over.wait()

    serving = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    serving.start()
    try:
        ready.wait()
        yield Ways(loop, proxies)
    finally:
        loop.call_soon_threadsafe(over.set)
        serving.join()
        loop.close()
