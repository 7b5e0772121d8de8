"""Tries to get out of a run's box, as a hostile app would. Tests upload this file with an app that is otherwise honest.

Beside it lies `targets.json`: `addresses` (host and port), `secrets` (the SHA-256 of a file by its path), `process` (an
id outside) and `bytes` (a file so large).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Try = Callable[[], object]


def failed() -> int:
    """Try everything; how many tries there were. Raises RuntimeError with those that did not fail."""
    tried = dict(_tries(json.loads(Path(__file__).with_name("targets.json").read_bytes())))
    if out := [what for what, reach in tried.items() if _reaches(reach)]:
        raise RuntimeError(f"out of the box: {', '.join(out)}")
    return len(tried)


def _tries(targets: dict[str, Any]) -> Iterator[tuple[str, Try]]:
    for host, port in targets["addresses"]:
        yield f"{host}:{port}", lambda at=(host, port): socket.create_connection(at, 5)
    for path, digest in targets["secrets"].items():
        yield path, lambda path=path, digest=digest: _read(Path(path), digest)
    process = targets["process"]
    yield "a process's variables", lambda: Path(f"/proc/{process}/environ").read_bytes()
    yield "a process", lambda: os.kill(process, 0)
    yield "a huge file", lambda: _fill(Path("huge"), targets["bytes"])


def _reaches(reach: Try) -> bool:
    try:
        reach()
    except OSError:
        return False
    return True


def _read(file: Path, digest: str) -> None:
    """Raises OSError where the file cannot be read, or another one lies in its place."""
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise FileNotFoundError(file)


def _fill(file: Path, size: int) -> None:
    try:
        with file.open("wb") as filled:
            filled.truncate(size)
    finally:
        file.unlink(missing_ok=True)
