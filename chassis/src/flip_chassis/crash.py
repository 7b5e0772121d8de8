"""Points between the steps of the backbone where a test may end the process, as a power cut would.

Nobody is armed in production, and no setting arms anyone: a point then costs one comparison. Only code that runs in a
process of its own, and is ready to lose it, calls `arm`.
"""

from collections.abc import Callable
from typing import Literal, get_args

Point = Literal[
    "log.appended",
    "relay.leading",
    "relay.window-opened",
    "relay.sent",
    "relay.acknowledged",
    "relay.cursor-moved",
    "inbox.polled",
    "inbox.deduped",
    "inbox.handled",
    "inbox.parked",
    "inbox.progress-noted",
    "inbox.database-committed",
    "inbox.kafka-committed",
    "inbox.retried",
]
POINTS: tuple[Point, ...] = get_args(Point)

_hook: Callable[[Point], None] | None = None


def arm(hook: Callable[[Point], None]) -> None:
    """Have `hook` called at every point that this process passes from now on."""
    global _hook  # noqa: PLW0603
    _hook = hook


def point(name: Point) -> None:
    """Pass a point."""
    if _hook is not None:
        _hook(name)
