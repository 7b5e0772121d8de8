"""Runs a server that listens on every interface in a network of its own, so that it can be had on loopback only.

    python -m flip_local.enclosure --inward 28101 --outward 28104 -- COMMAND...

Connections to an `inward` port of 127.0.0.1 are passed on to the same port of the server; those that the server makes
to an `outward` port of its own 127.0.0.1 are passed on to the same port of this machine's. It can reach nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_INTERFACE = "16sh"
_CHUNK_BYTES = 256 * 1024

NewSocket = Callable[[], socket.socket]


def outside_sockets() -> NewSocket:
    """What makes sockets in the network that this process is in now, also after it has left that."""
    mine, makers = socket.socketpair()
    if os.fork() == 0:
        mine.close()
        while makers.recv(1):
            with socket.socket() as made:
                socket.send_fds(makers, [b"."], [made.fileno()])
        os._exit(0)
    makers.close()

    def make() -> socket.socket:
        mine.send(b".")
        _, [descriptor], _, _ = socket.recv_fds(mine, 1, 1)
        return socket.socket(fileno=descriptor)

    return make


def enter_own_network() -> None:
    """Move this process, and all that it starts from here on, into a network with nothing but a loopback interface."""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network of its own is refused")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as control:
        request = struct.pack(_INTERFACE, b"lo", 0)
        _, flags = struct.unpack(_INTERFACE, fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack(_INTERFACE, b"lo", flags | _IFF_UP))


async def run(command: list[str], inward: list[socket.socket], outward: list[socket.socket], outside: NewSocket) -> int:
    """Run the server until it ends, passing connections on; its exit status."""
    server = await asyncio.create_subprocess_exec(*command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.send_signal, number)
    for listeners, new_socket in ((inward, socket.socket), (outward, outside)):
        for listener in listeners:
            await asyncio.start_server(partial(_pass_on, new_socket, listener.getsockname()), sock=listener)
    return await server.wait()


async def _pass_on(
    new_socket: NewSocket, address: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        other = new_socket()
        other.setblocking(False)
        await asyncio.get_running_loop().sock_connect(other, address)
        other_reader, other_writer = await asyncio.open_connection(sock=other)
        with contextlib.closing(other_writer):
            await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_local.enclosure")
    parser.add_argument("--inward", type=int, nargs="+", default=[], help="ports of the server")
    parser.add_argument("--outward", type=int, nargs="+", default=[], help="ports that the server may call")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    outside = outside_sockets()
    inward = [socket.create_server(("127.0.0.1", port)) for port in given.inward]
    enter_own_network()
    outward = [socket.create_server(("127.0.0.1", port)) for port in given.outward]
    sys.exit(asyncio.run(run(given.command, inward, outward, outside)))


if __name__ == "__main__":
    main()
