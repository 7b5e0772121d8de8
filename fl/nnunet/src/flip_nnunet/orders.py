"""Exact order statistics of numbers that stay apart: only counts over bins leave each holder.

A value is read as an unsigned key whose order is the value's own order (for IEEE floats the usual sign flip). The key
is found digit by digit, the highest first: every holder counts its values by their next bits, the sums name the bin
that holds the wanted rank, and the next question looks inside that bin. How many bits a question settles is a column's
`Scale`, which each holder knows by itself: of many values, wide digits need fewer questions; of few, each a patient's,
narrow ones tell less of the values away from the wanted rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from flip_nnunet.message import Array, Json

Counts = NDArray[np.int64]
"""Shape (prefixes, bins): how many values start with the prefix and go on with the bin's digit."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are read: the bits of their keys (16: integers below 65536, 32: float32, 64: float64), and how many of
    these each question settles, the highest first."""

    width: int
    digits: tuple[int, ...]

    def below(self, depth: int) -> int:
        """The bits that are left when the digit at `depth` is settled: a bin of it holds 2 to that many keys."""
        return self.width - list(accumulate(self.digits))[depth]


INTENSITIES = Scale(32, (16, 16))
EXTENTS = Scale(16, (8, 4, 2, 2))
"""Voxels along an axis: first in bins of 256."""
REALS = Scale(64, (12, 4, 4, 4, 4, 4, 16, 16))
"""Spacings and the like: first by sign and power of two. What begins alike up to the wide digits differs by less than
a millionth."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to search, and the ranks to find in it."""

    scale: Scale
    ranks: tuple[int, ...]


def keys(values: Array, width: int) -> NDArray[np.uint64]:
    """The keys of `values`; finite floats only, -0.0 counts as 0.0."""
    if width == 16:
        return values.astype(np.uint64)
    kind, unsigned = (np.float32, np.uint32) if width == 32 else (np.float64, np.uint64)
    bits = (values.astype(kind) + kind(0)).view(unsigned)
    sign = unsigned(1 << (width - 1))
    return np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)


def value(key: int, width: int) -> float:
    """The value whose key is `key`."""
    if width == 16:
        return float(key)
    sign = 1 << (width - 1)
    bits = key ^ sign if key & sign else key ^ (2 * sign - 1)
    kind, unsigned = (np.float32, np.uint32) if width == 32 else (np.float64, np.uint64)
    return float(np.array(bits, unsigned).view(kind))


def count(values: Array, scale: Scale, query: Json) -> Counts:
    """Answer one column's query `{"depth", "prefixes"}` of `order_statistics` for the values held here."""
    depth, prefixes = int(query["depth"]), [int(prefix) for prefix in query["prefixes"]]
    bits = scale.digits[depth]
    seen = keys(values, scale.width) >> np.uint64(scale.below(depth))
    digits = (seen & np.uint64((1 << bits) - 1)).astype(np.int64)
    above = seen >> np.uint64(bits)
    return np.stack([np.bincount(digits[above == np.uint64(prefix)], minlength=1 << bits) for prefix in prefixes])


def order_statistics(
    ask: Callable[[dict[str, Json]], Mapping[str, Counts]], columns: Mapping[str, Column]
) -> dict[str, dict[int, float]]:
    """The values at the wanted ranks (from 0) of each column.

    `ask` puts one query a column to all holders and returns the summed counts. Raises ValueError if a rank lies beyond
    the counted values.
    """
    paths = {name: {rank: (0, rank) for rank in column.ranks} for name, column in columns.items()}
    for depth in range(max((len(column.scale.digits) for column in columns.values()), default=0)):
        open_columns = {name: paths[name] for name, column in columns.items() if depth < len(column.scale.digits)}
        queries: dict[str, Json] = {
            name: {"depth": depth, "prefixes": sorted({prefix for prefix, _ in path.values()})}
            for name, path in open_columns.items()
        }
        counts = ask(queries)
        for name, path in open_columns.items():
            bits = columns[name].scale.digits[depth]
            rows = dict(zip(queries[name]["prefixes"], counts[name], strict=True))
            paths[name] = {
                rank: _descend(name, rows[prefix], bits, prefix, inner) for rank, (prefix, inner) in path.items()
            }
    return {
        name: {rank: value(key, columns[name].scale.width) for rank, (key, _) in path.items()}
        for name, path in paths.items()
    }


def _descend(name: str, row: NDArray[np.int64], bits: int, prefix: int, rank: int) -> tuple[int, int]:
    """The prefix one digit longer that holds the value of `rank` within `prefix`, and its rank in there."""
    cumulated = np.cumsum(row)
    if rank >= cumulated[-1]:
        raise ValueError(f"{name}: rank {rank} lies beyond the {cumulated[-1]} values counted")
    digit = int(np.searchsorted(cumulated, rank, side="right"))
    below = int(cumulated[digit - 1]) if digit else 0
    return prefix << bits | digit, rank - below
