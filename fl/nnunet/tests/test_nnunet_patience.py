"""A site that lives but does not answer holds nobody up for ever, and a slow one is given its time."""

from __future__ import annotations

import pytest
from flip_nnunet.patience import Clock, Patience
from pydantic import ValidationError

PATIENCE = Patience(factor=3, least_s=60)


def clock(asked: int, *took: float) -> Clock:
    made = Clock(PATIENCE, asked, 100.0)
    for seconds in took:
        made.answered(100.0 + seconds)
    return made


@pytest.mark.parametrize(
    ("asked", "took", "over_after"),
    [
        (2, [50], 150),  # three times as long as the other one
        (2, [1], 60),  # but a minute at any rate
        (4, [10, 40], 120),  # the slower of those that have answered
    ],
)
def test_once_half_have_answered_the_others_have_a_multiple_of_what_the_slowest_took(
    asked: int, took: list[float], over_after: float
):
    waits = clock(asked, *took)
    assert not waits.is_over(100.0 + over_after)
    assert waits.is_over(100.1 + over_after)


@pytest.mark.parametrize(("asked", "took"), [(1, []), (2, []), (3, [1]), (5, [1, 2])])
def test_until_half_have_answered_nobody_is_too_late(asked: int, took: list[float]):
    assert not clock(asked, *took).is_over(1e9)


@pytest.mark.parametrize("wrong", [{"factor": 0.5}, {"least_s": 0}, {"factor": float("inf")}, {"most_s": 1}])
def test_a_patience_that_would_never_or_always_end_is_refused(wrong: dict[str, float]):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Patience.model_validate(wrong)
