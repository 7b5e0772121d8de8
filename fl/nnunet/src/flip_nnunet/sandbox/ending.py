"""How a box ends that did not end by itself."""

from __future__ import annotations

import enum


class Ending(enum.IntEnum):
    """The exit status of a warden that ended its box, or could make none; others are the command's own."""

    UNAVAILABLE = 120
    MEMORY = 121
    TIME = 122
    OUTPUT = 123
    PROCESSES = 124

    @property
    def code(self) -> str:
        """The reason code that the hub hears."""
        return _REASONS[self][0]

    @property
    def detail(self) -> str:
        return _REASONS[self][1]


_REASONS = {
    Ending.UNAVAILABLE: ("sandbox-unavailable", "the site can make no box for its trainer"),
    Ending.MEMORY: ("memory-limit", "the trainer used more memory than the site allows"),
    Ending.TIME: ("time-limit", "the trainer ran longer than the site allows"),
    Ending.OUTPUT: ("output-limit", "the trainer wrote more to the disk than the site allows"),
    Ending.PROCESSES: ("process-limit", "the trainer ran more processes than the site allows"),
}


def ending_of(status: int) -> Ending | None:
    """What a warden's exit status says of it; None where the command ended by itself."""
    return Ending(status) if status in _REASONS else None
