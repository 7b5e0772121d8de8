"""How a figure is taken: rates between two looks at the result, medians of rounds, percentiles."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

_BETWEEN_LOOKS_S = 0.02
_PATIENCE_S = 300.0

Look = Callable[[], Awaitable[int]]
"""Counts what has come out so far."""
Contender = Callable[[], Awaitable[float]]
"""Does the work once; answers how fast."""


@dataclass(frozen=True, slots=True)
class Series:
    """One contender's figures, a round each."""

    name: str
    settings: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)


async def rate(look: Look, until: int) -> float:
    """Events a second between the first look that finds any and the first look that finds `until` of them.

    What comes before the first result (joining a group, connecting) doesn't count, and both ends are the same kind of
    instant, so working in batches gains nothing. Raises TimeoutError where the work stalls.
    """
    async with asyncio.timeout(_PATIENCE_S):
        began_with, began = await _look_for(look, 1)
        ended_with, ended = await _look_for(look, until)
    return (ended_with - began_with) / (ended - began)


async def _look_for(look: Look, least: int) -> tuple[int, float]:
    while True:
        found = await look()
        if found >= least:
            return found, time.perf_counter()
        await asyncio.sleep(_BETWEEN_LOOKS_S)


async def in_turns(rounds: int, contenders: Sequence[Contender]) -> list[tuple[float, ...]]:
    """Let the contenders take turns, so that what else the machine does meets all of them; the first turn warms up."""
    turns = [[await contender() for contender in contenders] for _ in range(rounds + 1)]
    return list(zip(*turns[1:], strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values stay below."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]
