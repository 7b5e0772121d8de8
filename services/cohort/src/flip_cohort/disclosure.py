"""What may leave a Trust of the persons that a query found. Pure; the one place that turns persons into numbers.

The promise: no released set of numbers determines a group of fewer than `threshold` persons. How:

* Every number counts distinct persons and stands for at least `threshold` of them, rounded to a multiple of `rounding`.
* Fewer persons than that, or none, is one answer, "suppressed": whoever asks for one person learns nothing by it.
* In a distribution the categories below the threshold are put together, unnamed, as the others. Where those would be
  too few, a named category joins them (complementary suppression), so that they can't be had by subtraction from the
  total. It is one of the two smallest, and which one depends on a secret of the Trust: who knew that it is the smallest
  could work backwards from it.
* Subtraction works across distributions too: what is left of any released group when the released groups inside it are
  taken away is nobody, or at least `threshold` persons.
* A group that consists of a few unnamed categories of another distribution, each nearly as large as an unnamed one can
  be, would tell their sizes: it is not named either.
* A query whose persons differ from those of an earlier one by fewer than `threshold` is not answered: the difference of
  the two answers would be about those few.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal, TypeAlias

THRESHOLD = 10
"""The fewest distinct persons that a number may stand for. A Trust may ask for more, never for fewer."""
ROUNDING = 5
"""What numbers are multiples of. A Trust may be coarser, never finer."""
OTHERS = "(others)"
"""The category of all persons whose own category isn't named."""
NOT_RECORDED = "(not recorded)"

Persons: TypeAlias = AbstractSet[int]
Released: TypeAlias = int | Literal["suppressed"]


@dataclass(frozen=True, slots=True)
class Rules:
    """A Trust's own measure of caution. `secret` never changes: a new one would let old and new answers be compared."""

    secret: bytes = field(repr=False)
    threshold: int = THRESHOLD
    rounding: int = ROUNDING

    def __post_init__(self) -> None:
        if self.threshold < THRESHOLD:
            raise ValueError(f"the disclosure threshold is at least {THRESHOLD}, not {self.threshold}")
        if self.rounding < ROUNDING:
            raise ValueError(f"numbers are rounded to a multiple of at least {ROUNDING}, not {self.rounding}")
        if len(self.secret) < 16:
            raise ValueError("the secret has at least 16 bytes")


@dataclass(frozen=True, slots=True)
class Release:
    """What may be told: distinct persons in all, and by distribution and category."""

    persons: Released
    distributions: Mapping[str, Mapping[str, Released]]


def release(everyone: Persons, distributions: Mapping[str, Mapping[str, Persons]], rules: Rules) -> Release:
    """What may be told of `everyone`, the persons found.

    `distributions` holds, by its name and then by category, the persons in it; a person may be in several categories of
    one distribution and is in at least one of each.
    """

    def rank(category: str) -> object:
        return hmac.digest(rules.secret, category.encode(), "sha256")

    return _release(everyone, distributions, rules.threshold, rules.rounding, rank)


def count(persons: int, rules: Rules) -> Released:
    """A bare number of distinct persons, or of things of which each person has at least one, as it may be told."""
    return "suppressed" if persons < rules.threshold else _rounded(persons, rules.threshold, rules.rounding)


def differs_by_few(now: Persons, earlier: Persons, rules: Rules) -> bool:
    """Whether the answers to two queries would, subtracted, be about fewer persons than may be told."""
    return 0 < len(now ^ earlier) < rules.threshold


def age_band(age_years: int) -> str:
    """The ten-year band of an age, open at 90."""
    if age_years >= 90:
        return "90+"
    first = max(age_years, 0) // 10 * 10
    return f"{first}-{first + 9}"


# --- how --------------------------------------------------------------------------------------------------------------


def _release(
    everyone: Persons,
    distributions: Mapping[str, Mapping[str, Persons]],
    threshold: int,
    rounding: int,
    rank: Callable[[str], Any],
) -> Release:
    if len(everyone) < threshold:
        return Release("suppressed", {})
    shown = {name: _Distribution(dict(parts), threshold) for name, parts in sorted(distributions.items())}
    while (unsafe := _unsafe(everyone, shown, threshold, rounding)) is not None:
        shown[unsafe].hide_one(rank)
    return Release(
        _rounded(len(everyone), threshold, rounding),
        {
            name: {category: _rounded(len(who), threshold, rounding) for category, who in sorted(distribution.groups())}
            for name, distribution in shown.items()
        },
    )


class _Distribution:
    """The named categories and, put together, the others."""

    def __init__(self, parts: dict[str, Persons], threshold: int) -> None:
        self.named = {category: who for category, who in parts.items() if len(who) >= threshold}
        self.small = [who for who in parts.values() if len(who) < threshold]
        self.others = _union(self.small)

    def groups(self) -> Iterator[tuple[str, Persons]]:
        """What would be released."""
        yield from self.named.items()
        if self.others:
            yield OTHERS, self.others

    def hide_one(self, rank: Callable[[str], Any]) -> None:
        """Let the first by rank of the two smallest named categories join the others."""
        smallest = sorted(self.named, key=lambda category: (len(self.named[category]), category))[:2]
        self.others = self.others | self.named.pop(min(smallest, key=rank))


def _unsafe(everyone: Persons, shown: Mapping[str, _Distribution], threshold: int, rounding: int) -> str | None:
    """A distribution that says too much beside the total and the other distributions, if there is one."""
    released = [everyone, *(who for distribution in shown.values() for _, who in distribution.groups())]
    for name, distribution in shown.items():
        if not distribution.named:
            continue
        if any(_betrays(distribution, group, threshold) for group in released):
            return name
        others = [other for other in shown.values() if other is not distribution]
        if any(
            _is_crammed(group, other, threshold, rounding) for group in distribution.named.values() for other in others
        ):
            return name
    return None


def _betrays(distribution: _Distribution, group: Persons, threshold: int) -> bool:
    """Whether subtracting the distribution's groups from `group` leaves a few persons, or its others are a few."""
    inside = [who for _, who in distribution.groups() if who < group]
    remainders = [len(group - who) for who in inside]
    if inside:
        remainders.append(len(group - _union(inside)))
    return any(0 < few < threshold for few in (*remainders, len(distribution.others)))


def _is_crammed(group: Persons, other: _Distribution, threshold: int, rounding: int) -> bool:
    """Whether `group` is a few unnamed categories of another distribution, as full as unnamed ones can be."""
    inside = [who for who in other.small if who <= group]
    return len(group) > len(inside) * (threshold - 1) - rounding and bool(inside) and group == _union(inside)


def _union(sets: Iterable[Persons]) -> Persons:
    return reduce(lambda one, other: one | other, sets, frozenset[int]())


def _rounded(number: int, threshold: int, rounding: int) -> int:
    return max(threshold, (number + rounding // 2) // rounding * rounding)
