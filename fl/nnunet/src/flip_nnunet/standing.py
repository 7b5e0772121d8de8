"""Which round's weights are the best so far, as nnU-Net judges epochs: by a moving average of the mean Dice.

The formula is that of nnU-Net's logger (`ema_fg_dice` of nnunetv2): a tenth of the new value, nine tenths of what was.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from flip_nnunet.aggregation import Aggregate

_NEW = 0.1


class Best(BaseModel):
    """The best round so far, the digest of its weights and its score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: NonNegativeInt
    digest: str
    score: float


class Standing(BaseModel):
    """How a run stands after a round: the score of that round, None where there is none yet, and the best round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: float | None = None
    best: Best | None = None

    def after(self, number: int, digest: str, dice: float | None) -> Standing:
        """The standing after one more round. `dice`: its mean over structures and sites, None where none was told."""
        if dice is None:
            return self
        score = dice if self.score is None else (1 - _NEW) * self.score + _NEW * dice
        if self.best is not None and score <= self.best.score:
            return Standing(score=score, best=self.best)
        return Standing(score=score, best=Best(round=number, digest=digest, score=score))


def mean_dice(aggregated: Aggregate) -> float | None:
    """The mean of what the sites told of their own validation, each by its share of the round's average.

    A site tells of the network that it trained itself, before the average. None if one whose share counts told none.
    """
    told = {site: checked.contribution.metrics.get("dice") for site, checked in aggregated.contributions.items()}
    counted = [(aggregated.shares[site], dice) for site, dice in sorted(told.items()) if aggregated.shares[site] > 0]
    values = [share * dice for share, dice in counted if isinstance(dice, float)]
    return sum(values) if values and len(values) == len(counted) else None
