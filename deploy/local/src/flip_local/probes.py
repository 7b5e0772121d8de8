"""Asks a part whether it is ready."""

from __future__ import annotations

import asyncio
import ssl
import subprocess

import httpx

from flip_local.children import Children
from flip_local.part import CommandProbe, HttpProbe, Probe, TaskProbe, TcpProbe

_LIMIT_S = 3.0


async def answers(probe: Probe, children: Children) -> bool:
    """Whether the probe finds its part ready now; asking takes 3 s at most."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await _ask(probe, children)
    except (OSError, TimeoutError, httpx.TransportError):
        return False


async def _ask(probe: Probe, children: Children) -> bool:
    match probe:
        case TcpProbe(port=port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        case HttpProbe():
            return await _http_status(probe) in probe.statuses
        case CommandProbe(command=command):
            return await _exit_status(command, children) == 0
        case TaskProbe():
            return False


async def _http_status(probe: HttpProbe) -> int:
    # Without TLS there is nothing to verify, and making a context for it would take longer than the request.
    verify = ssl.create_default_context(cafile=probe.ca) if probe.ca else False
    async with httpx.AsyncClient(verify=verify, timeout=_LIMIT_S, trust_env=False) as client:
        return (await client.get(probe.url)).status_code


async def _exit_status(command: tuple[str, ...], children: Children) -> int:
    pid = children.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return await children.ended(pid)
    finally:
        children.forget(pid)
