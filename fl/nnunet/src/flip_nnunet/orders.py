"""Exact order statistics of numbers that stay apart: only counts over bins leave each holder.

A value is read as an unsigned key whose order is the value's own order (for IEEE floats the usual sign flip). The key
is found digit by digit: every holder counts its values by their next `DIGIT_BITS` bits, the sums name the bin that
holds the wanted rank, and the next round looks inside that bin. 2 rounds settle a float32, 4 a float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flip_nnunet.message import Array, Json

DIGIT_BITS = 16
BINS = 1 << DIGIT_BITS

Counts = NDArray[np.int64]
"""Shape (prefixes, BINS): how many values start with the prefix and go on with the bin's digit."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to search: the bits of its keys (16: integers below 65536, 32: float32, 64: float64) and the ranks."""

    width: int
    ranks: tuple[int, ...]


def keys(values: Array, width: int) -> NDArray[np.uint64]:
    """The keys of `values`; finite floats only, -0.0 counts as 0.0."""
    if width == DIGIT_BITS:
        return values.astype(np.uint64)
    kind, unsigned = (np.float32, np.uint32) if width == 32 else (np.float64, np.uint64)
    bits = (values.astype(kind) + kind(0)).view(unsigned)
    sign = unsigned(1 << (width - 1))
    return np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)


def value(key: int, width: int) -> float:
    """The value whose key is `key`."""
    if width == DIGIT_BITS:
        return float(key)
    sign = 1 << (width - 1)
    bits = key ^ sign if key & sign else key ^ (2 * sign - 1)
    kind, unsigned = (np.float32, np.uint32) if width == 32 else (np.float64, np.uint64)
    return float(np.array(bits, unsigned).view(kind))


def count(values: Array, query: Json) -> Counts:
    """Answer one column's query `{"width", "depth", "prefixes"}` of `order_statistics` for the values held here."""
    width, depth, prefixes = int(query["width"]), int(query["depth"]), [int(prefix) for prefix in query["prefixes"]]
    shift = width - DIGIT_BITS * (depth + 1)
    seen = keys(values, width) >> np.uint64(shift)
    digits = (seen & np.uint64(BINS - 1)).astype(np.int64)
    above = seen >> np.uint64(DIGIT_BITS)
    return np.stack([np.bincount(digits[above == np.uint64(prefix)], minlength=BINS) for prefix in prefixes])


def order_statistics(
    ask: Callable[[dict[str, Json]], Mapping[str, Counts]], columns: Mapping[str, Column]
) -> dict[str, dict[int, float]]:
    """The values at the wanted ranks (from 0) of each column.

    `ask` puts one query a column to all holders and returns the summed counts. Raises ValueError if a rank lies beyond
    the counted values.
    """
    paths = {name: {rank: (0, rank) for rank in column.ranks} for name, column in columns.items()}
    found: dict[str, dict[int, float]] = {}
    for depth in range(max((column.width for column in columns.values()), default=0) // DIGIT_BITS):
        open_columns = {name: paths[name] for name in columns if name not in found}
        queries: dict[str, Json] = {
            name: {
                "width": columns[name].width,
                "depth": depth,
                "prefixes": sorted({prefix for prefix, _ in path.values()}),
            }
            for name, path in open_columns.items()
        }
        counts = ask(queries)
        for name, path in open_columns.items():
            rows = dict(zip(queries[name]["prefixes"], counts[name], strict=True))
            paths[name] = {rank: _descend(name, rows[prefix], prefix, inner) for rank, (prefix, inner) in path.items()}
            if columns[name].width == DIGIT_BITS * (depth + 1):
                found[name] = {rank: value(key, columns[name].width) for rank, (key, _) in paths[name].items()}
    return found


def _descend(name: str, row: NDArray[np.int64], prefix: int, rank: int) -> tuple[int, int]:
    """The prefix one digit longer that holds the value of `rank` within `prefix`, and its rank in there."""
    cumulated = np.cumsum(row)
    if rank >= cumulated[-1]:
        raise ValueError(f"{name}: rank {rank} lies beyond the {cumulated[-1]} values counted")
    digit = int(np.searchsorted(cumulated, rank, side="right"))
    below = int(cumulated[digit - 1]) if digit else 0
    return prefix << DIGIT_BITS | digit, rank - below
