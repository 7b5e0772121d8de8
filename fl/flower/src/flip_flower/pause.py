"""How often to look for what does not tell: often at first, seldom once it takes its time."""

from __future__ import annotations

import time

_SHARE = 0.1


class Pause:
    """Waits between two looks. A wait is a tenth of the time since the last success: at most so much is lost by it."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._since = time.monotonic()

    def succeeded(self) -> None:
        """What was looked for was there."""
        self._since = time.monotonic()

    def wait(self) -> None:
        waited_s = time.monotonic() - self._since
        time.sleep(min(self._longest_s, max(self._shortest_s, _SHARE * waited_s)))
