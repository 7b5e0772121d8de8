"""When failures are too many to be the records' fault: then the service stops hearing instead of parking everything."""

from collections import deque
from dataclasses import dataclass, field

IN_A_ROW = 100
WINDOW = 1000
AT_LEAST = 200
RATIO = 0.5


@dataclass(slots=True)
class Limit:
    """The failures of one partition: too many in a row, or more than half of the last thousand records.

    The idea of a limit in ratio and in a row is that of Sentry's arroyo (`DlqLimit`).
    """

    in_a_row: int = 0
    _failed: deque[bool] = field(default_factory=lambda: deque[bool](maxlen=WINDOW))
    _failures: int = 0

    def note(self, *, failed: bool) -> None:
        """Count a record."""
        if len(self._failed) == WINDOW:
            self._failures -= self._failed[0]
        self._failed.append(failed)
        self._failures += failed
        self.in_a_row = self.in_a_row + 1 if failed else 0

    def reached(self) -> str | None:
        """Why to stop, or None."""
        if self.in_a_row >= IN_A_ROW:
            return f"{self.in_a_row} records in a row failed"
        if len(self._failed) >= AT_LEAST and self._failures > RATIO * len(self._failed):
            return f"{self._failures} of the last {len(self._failed)} records failed"
        return None
