"""Weights on the hub's side: which contributions count, and their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from flip_nnunet.message import Message, Weights


class ContributionRefused(Exception):
    """A site's contribution to a round cannot be used."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


def check_contribution(reply: Message, current: Weights, round_number: int, cases: int) -> None:
    """Refuse a reply to `train_round` that may not enter the mean. Raises `ContributionRefused`.

    `current` are the weights that were sent: names, shapes and dtypes must be theirs, every value finite. The reply
    must be for this round, and its case count, which weighs it, the one the site described itself with.
    """
    if reply.meta.get("round") != round_number:
        raise ContributionRefused("wrong-round", f"answers round {reply.meta.get('round')}, not {round_number}")
    if reply.meta.get("cases") != cases:
        raise ContributionRefused("wrong-weight", "its case count is not the one the site described itself with")
    if reply.arrays.keys() != current.keys():
        differ = sorted(reply.arrays.keys() ^ current.keys())
        raise ContributionRefused("wrong-tensors", f"{len(differ)} tensors missing or unknown, first {differ[0]}")
    for name in sorted(current):
        array, expected = reply.arrays[name], current[name]
        if array.shape != expected.shape:
            raise ContributionRefused("wrong-shape", f"{name}: {list(array.shape)}, not {list(expected.shape)}")
        if array.dtype != expected.dtype:
            raise ContributionRefused("wrong-dtype", f"{name}: {array.dtype}, not {expected.dtype}")
        if not np.all(np.isfinite(array)):
            raise ContributionRefused("not-finite", f"{name}: holds a value that is not a finite number")


def weighted_mean(contributions: Mapping[str, Weights], factors: Mapping[str, float]) -> Weights:
    """The mean of the contributions, each weighed by its site's factor (> 0).

    Summed in float64 in the order of the sites' names, then cast once: the same bits whoever answers first.
    """
    order = sorted(contributions)
    total = math.fsum(factors[site] for site in order)
    mean: Weights = {}
    for name, first in contributions[order[0]].items():
        summed = np.zeros(first.shape, np.float64)
        for site in order:
            summed += contributions[site][name].astype(np.float64) * (factors[site] / total)
        mean[name] = (np.rint(summed) if first.dtype.kind in "iu" else summed).astype(first.dtype)
    return mean
