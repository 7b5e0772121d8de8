"""Which counts of studies may leave the Trust. Pure.

A cell from 1 to below the threshold is suppressed. Readers may know the total from elsewhere: so the suppressed cells
are at least two and hold at least the threshold together, or further cells, the smallest first, are suppressed too.
"""

from collections.abc import Mapping
from typing import TypeVar

from flip_contracts.base import Released

Cell = TypeVar("Cell", bound=str)


def release(counts: Mapping[Cell, int], threshold: int) -> dict[Cell, Released]:
    """The counts as they may be told."""
    hidden = {cell for cell, count in counts.items() if 0 < count < threshold}
    others = sorted((count, cell) for cell, count in counts.items() if count >= threshold)
    while hidden and others and (len(hidden) < 2 or sum(counts[cell] for cell in hidden) < threshold):
        hidden.add(others.pop(0)[1])
    return {cell: "suppressed" if cell in hidden else count for cell, count in counts.items()}
