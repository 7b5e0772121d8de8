"""nnU-Net's dataset fingerprint of data that never meet.

Exact: every statistic that nnU-Net's planner and normalisation read is the one of the pooled data. Integer images need
one round (a histogram by unit bins), others a few rounds of refined bins (`orders`). Of the geometry only medians and
10th percentiles of single axes are found; nnU-Net then plans from a synthetic list of cases with those percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flip_nnunet.message import Json, Message, digest
from flip_nnunet.orders import EXTENTS, INTENSITIES, REALS, Column, Counts, order_statistics

HISTOGRAM_LOW = -(1 << 15)
HISTOGRAM_SIZE = 3 << 15
"""Unit bins for the integers -32768 .. 65535: all that 16-bit images, signed or not, can hold."""

_PERCENTILES = {"percentile_00_5": 0.5, "median": 50.0, "percentile_99_5": 99.5}
_AXES = (0, 1, 2)

Replies = Mapping[str, Message]
Ask = Callable[[str, Json], Replies]
"""Puts one operation with its meta to every site; the answers by site."""


class Inconsistent(Exception):
    """The sites' answers cannot belong together."""

    code = "answers-inconsistent"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The federation's fingerprint as nnU-Net reads it, and what its planner would compute from the pooled cases.

    `median_new_shape`: the median over all cases of the shape after resampling to the target spacing, voxels an axis.
    """

    content: Json
    median_new_shape: tuple[float, float, float]

    def as_json(self) -> Json:
        return {"content": self.content, "median_new_shape": list(self.median_new_shape)}

    @classmethod
    def from_json(cls, record: Json) -> Fingerprint:
        depth, height, width = (float(edge) for edge in record["median_new_shape"])
        return cls(record["content"], (depth, height, width))

    def digest(self) -> str:
        return digest(self.as_json())


def federated_fingerprint(ask: Ask, cases: int, channels: int, voxels: int) -> Fingerprint:
    """Ask the sites for the fingerprint of their `cases` cases together, `voxels` foreground voxels drawn a channel."""
    if voxels < cases:
        raise ValueError(f"voxels: {voxels} are fewer than one for each of {cases} cases")
    replies = ask("statistics", {"voxels_per_case": voxels // cases})
    intensities = {str(channel): _intensities(ask, replies, channel) for channel in range(channels)}
    spacings, shapes, relative_size, median_new_shape = _geometry(ask, cases)
    content: Json = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": relative_size,
    }
    return Fingerprint(content, median_new_shape)


# --- intensities ------------------------------------------------------------------------------------------------


def _intensities(ask: Ask, replies: Replies, channel: int) -> Json:
    summaries = [reply.meta["channels"][channel] for reply in replies.values()]
    total = sum(int(summary["count"]) for summary in summaries)
    if total == 0:
        raise Inconsistent(f"channel {channel}: no case has a foreground voxel")
    if all(summary["integer"] for summary in summaries):
        return _from_histogram(_sum(replies, f"histogram/{channel}"), total)
    return _from_refinement(ask, channel, total)


def _from_histogram(histogram: NDArray[np.int64], total: int) -> Json:
    values = np.arange(HISTOGRAM_SIZE, dtype=np.int64) + HISTOGRAM_LOW
    cumulated = np.cumsum(histogram)
    if cumulated[-1] != total:
        raise Inconsistent(f"histograms hold {cumulated[-1]} voxels, {total} were announced")
    mean = int(histogram @ values) / total
    variance = float(histogram @ np.square(values - mean)) / total
    at = {rank: float(values[np.searchsorted(cumulated, rank, side="right")]) for rank in _ranks(total)}
    return _properties(mean, variance, at, total)


def _from_refinement(ask: Ask, channel: int, total: int) -> Json:
    name = f"intensity/{channel}"

    def counts(queries: dict[str, Json]) -> dict[str, Counts]:
        return _summed(ask("refine", {"columns": queries}), queries)

    at = order_statistics(counts, {name: Column(INTENSITIES, tuple(_ranks(total)))})[name]
    # The first pass only finds a centre; sums around the mean do not cancel.
    centre = _moments(ask, channel, at[(total - 1) // 2])["sum"] / total + at[(total - 1) // 2]
    around = _moments(ask, channel, centre)
    shift = around["sum"] / total
    return _properties(centre + shift, around["squares"] / total - shift**2, at, total)


def _moments(ask: Ask, channel: int, centre: float) -> dict[str, float]:
    replies = ask("refine", {"moments": {"channel": channel, "centre": centre}})
    answers = [replies[site].meta["moments"] for site in sorted(replies)]
    return {key: float(sum(answer[key] for answer in answers)) for key in ("sum", "squares")}


def _ranks(total: int) -> list[int]:
    """The order statistics needed: smallest, largest, and the two around each percentile."""
    around = {rank for percent in _PERCENTILES.values() for rank in _between(percent, total)[:2]}
    return sorted({0, (total - 1) // 2, total - 1} | around)


def _between(percent: float, total: int) -> tuple[int, int, float]:
    """numpy's linear percentile lies between two ranks: both, and how far between them."""
    position = percent / 100 * (total - 1)
    below = int(np.floor(position))
    return below, min(below + 1, total - 1), position - below


def _percentile(percent: float, at: Mapping[int, float], total: int) -> float:
    low, high, part = _between(percent, total)
    # As numpy interpolates float32: the distance in float32, from the nearer end.
    distance = float(np.float32(at[high]) - np.float32(at[low]))
    return at[low] + distance * part if part < 0.5 else at[high] - distance * (1 - part)


def _properties(mean: float, variance: float, at: Mapping[int, float], total: int) -> Json:
    percentiles = {name: _percentile(percent, at, total) for name, percent in _PERCENTILES.items()}
    return {"mean": mean, "std": float(np.sqrt(variance)), "min": at[0], "max": at[total - 1], **percentiles}


# --- geometry ---------------------------------------------------------------------------------------------------


def _geometry(ask: Ask, cases: int) -> tuple[list[list[float]], list[list[float]], float, tuple[float, float, float]]:
    low, high = (cases - 1) // 2, cases // 2
    tenth = _between(10.0, cases)[:2]
    columns = {f"spacing/{axis}": Column(REALS, tuple(sorted({*tenth, low, high}))) for axis in _AXES}
    columns |= {f"shape/{axis}": Column(EXTENTS, (low, high)) for axis in _AXES}
    columns |= {"relative_size": Column(REALS, (low, high))}
    at = order_statistics(_geometry_counts(ask, {}), columns)

    tenths = [_tenth([at[f"spacing/{axis}"][rank] for rank in tenth], cases) for axis in _AXES]

    def middles(kind: str) -> list[tuple[float, float]]:
        return [(at[f"{kind}/{axis}"][low], at[f"{kind}/{axis}"][high]) for axis in _AXES]

    spacings = _rows(tenths, middles("spacing"), cases)
    shapes = _rows([first for first, _ in middles("shape")], middles("shape"), cases)

    new_columns = {f"new_shape/{axis}": Column(EXTENTS, (low, high)) for axis in _AXES}
    synopsis: Json = {"spacings": spacings, "shapes_after_crop": shapes}
    new = order_statistics(_geometry_counts(ask, {"synopsis": synopsis}), new_columns)
    depth, height, width = ((new[f"new_shape/{axis}"][low] + new[f"new_shape/{axis}"][high]) / 2 for axis in _AXES)
    relative_size = (at["relative_size"][low] + at["relative_size"][high]) / 2
    return spacings, shapes, relative_size, (depth, height, width)


def _geometry_counts(ask: Ask, extra: Json) -> Callable[[dict[str, Json]], dict[str, Counts]]:
    return lambda queries: _summed(ask("geometry", {"columns": queries, **extra}), queries)


def _tenth(around: list[float], cases: int) -> float:
    """numpy's 10th percentile, from the values at the two ranks around it."""
    low, _, _ = _between(10.0, cases)
    return float(np.percentile(np.where(np.arange(cases) <= low, around[0], around[1]), 10))


def _rows(tenths: list[float], middles: list[tuple[float, float]], cases: int) -> list[list[float]]:
    """Cases whose 10th percentile and two middle values are the given ones on every axis.

    22 of them: an even number, so that the mean of the two middle ones, nnU-Net's median, has both its summands. Of
    two cases the 10th percentile lies between the middle values; there the sorted axes themselves are all there is.
    """
    if cases == 2:
        columns = [[low, high] for low, high in middles]
    else:
        columns = [[tenth] * 4 + [low] * 7 + [high] * 11 for tenth, (low, high) in zip(tenths, middles, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _summed(replies: Replies, queries: Mapping[str, Json]) -> dict[str, Counts]:
    return {name: _sum(replies, f"counts/{name}") for name in queries}


def _sum(replies: Replies, name: str) -> NDArray[np.int64]:
    return np.stack([reply.arrays[name] for reply in replies.values()]).sum(axis=0, dtype=np.int64)
