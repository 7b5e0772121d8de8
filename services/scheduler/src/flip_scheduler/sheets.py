"""The metrics of a run as CSV (RFC 4180), a line a value."""

import csv
import io
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from flip_chassis.database import Pool
from flip_contracts.base import RunId

from flip_scheduler import store

COLUMNS = ("trust", "name", "round", "axis", "x", "value", "attempt", "at")


@dataclass(frozen=True, slots=True)
class Sheets:
    """Makes sheets as they are read. A connection is held for a page at a time: a reader may be slow."""

    pool: Pool
    page: int = 1000

    async def metrics(self, run_id: RunId) -> AsyncGenerator[bytes]:
        """The run's metrics by Trust, name and round, below a line with the names of the columns."""
        yield _lines([COLUMNS])
        after = store.BEFORE_ALL
        while True:
            async with self.pool.acquire() as db:
                page = await store.page_of_metrics(db, run_id, after, self.page)
            if not page:
                return
            yield _lines([[*(row[column] for column in COLUMNS[:-1]), row["at"].isoformat()] for row in page])
            last = page[-1]
            after = (last["trust"], last["name"], last["round"], last["axis"], last["x"])


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
