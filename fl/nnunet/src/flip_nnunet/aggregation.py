"""Federated averaging of a round, one contribution at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from flip_nnunet.contribution import Checked, ContributionExcluded, RoundTerms, check_contribution
from flip_nnunet.message import Answers, Array, Message, SiteFailure, Weights, failure_of


class TooFewContributions(Exception):
    """A round got fewer usable contributions than the job asks for. Its weights stay those of the round before.

    `excluded`: the sites whose contribution could not count, and why.
    """

    code = "too-few-contributions"

    def __init__(self, message: str, excluded: Mapping[str, SiteFailure]) -> None:
        self.excluded = dict(excluded)
        super().__init__(message)


class MeanNotFinite(Exception):
    """The mean of a round's contributions, each of them finite, is not. The round's weights stay those before it."""

    code = "mean-not-finite"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A round's mean, and what it is made of: by site, in the order of names."""

    weights: Weights
    contributions: dict[str, Checked]
    shares: dict[str, float]
    """Each contribution's part in the mean; together 1."""


Exclude = Callable[[str, SiteFailure], None]
"""Is told of each site whose contribution does not count, when that is found."""


def aggregate(
    answers: Answers, terms: RoundTerms, factors: Mapping[str, float], minimum_sites: int, exclude: Exclude
) -> Aggregate:
    """The mean of the contributions, weighted by each one's cases times its site's factor (1 for a site not named).

    Each contribution is checked, added and dropped, so that one model is kept however many sites there are, plus
    what came before its turn: sums go in the order of the sites' names, for the same bits whoever answers first.
    Raises `TooFewContributions` as soon as `minimum_sites` contributions cannot be reached, or if none has a weight,
    and `MeanNotFinite`.
    """
    mean = WeightedMean(terms.cases)
    usable: dict[str, Checked] = {}
    weights: dict[str, float] = {}
    left_out: dict[str, SiteFailure] = {}
    with closing(answers):
        for site, reply in answers:
            try:
                usable[site] = _checked(site, reply, terms)
            except ContributionExcluded as excluded:
                left_out[site] = excluded.failure  # the exception's frames would keep the tensors
                exclude(site, excluded.failure)
                mean.leave_out(site)
            else:
                weights[site] = usable[site].contribution.cases * factors.get(site, 1.0)
                mean.add(site, reply.arrays, weights[site])
            del reply  # or it would be kept until the next has arrived
            if len(terms.cases) - len(left_out) < minimum_sites:
                break
    if len(usable) < minimum_sites:
        found = f"{minimum_sites} contributions needed, {len(usable)} usable, {len(left_out)} excluded"
        raise TooFewContributions(f"round {terms.number}: {found}", left_out)
    total = sum(weights[site] for site in sorted(weights))
    if total == 0:
        raise TooFewContributions(f"round {terms.number}: all usable contributions have the weight 0", left_out)
    shares = {site: weights[site] / total for site in sorted(weights)}
    return Aggregate(mean.finish(), {site: usable[site] for site in sorted(usable)}, shares)


def _checked(site: str, reply: Message, terms: RoundTerms) -> Checked:
    failure = failure_of(reply)
    if failure is not None:
        raise ContributionExcluded(failure.code, failure.detail)
    return check_contribution(site, reply, terms)


class WeightedMean:
    """The weighted mean of some sites' tensors: summed in float64 in the order of the sites' names, cast once.

    Each of `sites` is either added or left out; what comes before its turn waits.
    """

    def __init__(self, sites: Iterable[str]) -> None:
        self._turns = deque(sorted(sites))
        self._waiting: dict[str, tuple[Weights, float] | None] = {}
        self._sums: dict[str, tuple[Array, np.dtype[np.generic]]] = {}
        self._total = 0.0

    def add(self, site: str, weights: Weights, factor: float) -> None:
        """Count a site's tensors with a factor >= 0. All sites' tensors have the same names, shapes and types."""
        self._waiting[site] = weights, factor
        self._take_turns()

    def leave_out(self, site: str) -> None:
        """Nothing comes of this site."""
        self._waiting[site] = None
        self._take_turns()

    def finish(self) -> Weights:
        """The mean of what was added; sites of which nothing was heard are left out. Ends the use of this object.

        Raises `MeanNotFinite`.
        """
        for site in [site for site in self._turns if site not in self._waiting]:
            self.leave_out(site)
        mean: Weights = {}
        for name in list(self._sums):
            summed, dtype = self._sums.pop(name)
            with np.errstate(invalid="ignore", over="ignore"):  # what becomes of it is looked at
                summed /= self._total
                rounded = np.rint(summed) if dtype.kind in "iu" else summed  # a scalar, if the tensor has no dimension
                mean[name] = np.asarray(rounded).astype(dtype)
            if not (np.all(np.isfinite(rounded)) and np.all(np.isfinite(mean[name]))):
                raise MeanNotFinite(f"{name}: its mean holds a value that is not a finite number")
        return mean

    def _take_turns(self) -> None:
        while self._turns and self._turns[0] in self._waiting:
            waited = self._waiting.pop(self._turns.popleft())
            if waited is not None:
                self._sum(*waited)

    def _sum(self, weights: Weights, factor: float) -> None:
        self._total += factor
        for name, array in weights.items():
            if name not in self._sums:
                self._sums[name] = np.zeros(array.shape, np.float64), array.dtype
            summed, _ = self._sums[name]
            with np.errstate(invalid="ignore", over="ignore"):  # `finish` looks at the mean
                summed += np.multiply(array, factor, dtype=np.float64)
