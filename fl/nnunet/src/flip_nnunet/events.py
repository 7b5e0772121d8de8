"""The durable channel from a run at the hub to the platform's controller: a file of one JSON object a line."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

EVENTS_FILE = "events.jsonl"


class EventLog:
    """Appends events to `events.jsonl` of a run's folder; each is on disk when `tell` returns.

    Every event gets `seq` (1, 2, 3, ... over all attempts of the run), `at` (UTC) and `attempt`. One writer at a time.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self._path = folder / EVENTS_FILE
        self._attempt = attempt
        self._last = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("ab+")
        self._last = self._cut_torn_line()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def tell(self, event: dict[str, Any]) -> None:
        envelope = {"seq": self._last + 1, "at": datetime.now(UTC).isoformat(), "attempt": self._attempt}
        self._file.write(json.dumps(envelope | event, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last += 1

    def _cut_torn_line(self) -> int:
        """Drop what a killed writer left of a line; returns the sequence number of the last whole event."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            self._file.truncate(sum(map(len, lines)))
        return int(json.loads(lines[-1])["seq"]) if lines else 0


def read_events(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """The run's events with a `seq` above `after`, in order; a line that is still being written is left for later."""
    path = folder / EVENTS_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [event for line in lines if (event := json.loads(line))["seq"] > after]
