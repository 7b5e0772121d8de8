"""The best round is found as nnU-Net finds the best epoch, over any number of attempts."""

from __future__ import annotations

from functools import reduce

import pytest
from flip_nnunet.standing import Best, Standing


def after(standing: Standing, told: tuple[int, float | None]) -> Standing:
    number, dice = told
    return standing.after(number, f"digest of {number}", dice)


@pytest.mark.requirement("NNU-9")
def test_a_round_is_best_where_the_moving_average_of_dice_is_highest():
    dices = [0.5, 0.9, 0.2, 0.54]  # averages: 0.5, 0.54, 0.506, 0.5094
    standing = reduce(after, enumerate(dices), Standing())
    assert standing.score == pytest.approx(0.5094)
    assert standing.best is not None
    assert (standing.best.round, standing.best.digest) == (1, "digest of 1")
    assert standing.best.score == pytest.approx(0.54)


def test_a_round_without_dice_changes_nothing_and_the_first_with_one_is_best():
    assert after(Standing(), (0, None)) == Standing()
    first = after(Standing(), (1, 0.0))
    assert first.best == Best(round=1, digest="digest of 1", score=0.0)
    assert after(first, (2, None)) == first


def test_of_equal_rounds_the_earlier_one_is_best():
    standing = reduce(after, enumerate([0.5, 0.5]), Standing())
    assert standing.best is not None
    assert standing.best.round == 0
