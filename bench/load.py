"""`python -m bench.load PORT PATH TOKEN CONNECTIONS SECONDS`: ask as fast as it answers; prints answers a second.

A process of its own and plain sockets, so that asking takes little from who answers.
"""

import asyncio
import sys
import time
from uuid import uuid4

import uvloop

_LENGTH = b"content-length:"


async def _ask(port: int, path: str, token: str, until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while time.perf_counter() < until:
        lines = (
            f"POST {path.format(id=uuid4())} HTTP/1.1",
            "Host: service",
            f"Authorization: Bearer {token}",
            "Content-Length: 0",
            "\r\n",
        )
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line.removeprefix(_LENGTH) for line in head.split(b"\r\n") if line.startswith(_LENGTH))
        body = await reader.readexactly(int(length))
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0].decode()}: {body.decode()}")
        answers += 1
    writer.close()
    return answers


async def _all(port: int, path: str, token: str, connections: int, seconds: float) -> float:
    until = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_ask(port, path, token, until) for _ in range(connections)))) / seconds


def main() -> None:
    port, path, token, connections, seconds = sys.argv[1:]
    answers_a_second = uvloop.run(_all(int(port), path, token, int(connections), float(seconds)))
    sys.stdout.write(f"{answers_a_second}\n")


if __name__ == "__main__":
    main()
