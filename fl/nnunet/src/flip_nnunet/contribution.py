"""The one check of what a site gives for a round. Every runtime's contributions pass it; it needs numpy alone.

Neither FLARE nor Flower looks: by themselves both let a NaN, a broadcast shape or a made-up number of cases through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from flip_nnunet.message import MALFORMED, Array, Message, SiteFailure, Weights

StateSource = Literal["none", "memory", "disk", "lost"]
"""Where a site's optimiser state before a round came from. `none`: it is the first round. `lost`: it starts anew."""

_Number = Annotated[float, Field(allow_inf_nan=False)]
_MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Metric = _Number | Annotated[list[_Number | None], Field(max_length=1000)] | None
_CODES = {"round": "wrong-round", "plan": "wrong-plan", "cases": "wrong-weight"}
"""The reason code for a field that is malformed; for all others it is `MALFORMED`."""


class Contribution(BaseModel):
    """What a site says beside its new weights. Fields that are not known are left aside."""

    model_config = ConfigDict(frozen=True, strict=True)

    round: NonNegativeInt
    plan: str
    """The digest of the plan that it trains by."""
    cases: PositiveInt
    """How many cases it trained on: the weight of its update."""
    metrics: Annotated[dict[_MetricName, _Metric], Field(max_length=100)]
    state: StateSource
    seconds: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Checked:
    """A contribution that may count. `update`: how far it lies from the weights that were sent (see `RoundTerms`)."""

    contribution: Contribution
    update: float


class ContributionExcluded(Exception):
    """A site's contribution cannot count in this round."""

    def __init__(self, code: str, detail: str) -> None:
        self.failure = SiteFailure(code, detail)
        super().__init__(f"{code}: {detail}")


@dataclass(frozen=True, slots=True)
class RoundTerms:
    """What the contributions to a round are held to.

    An update is measured by the L2 norm of its difference from the weights that were sent, over the norm of these (or
    over 1, for weights near zero); tensors of integers are counters, not weights, and are left out. It may be
    `largest_update` at most. That is a guard against weights that have run away or were never this network's, not
    against a careful attacker: rounds of nnU-Net, whose gradients are clipped, move by a fraction of 1.
    """

    number: int
    plan: str
    """The digest that the sites agreed on."""
    weights: Weights
    """The global weights that were sent."""
    cases: Mapping[str, int]
    """How many cases each site that was asked has declared."""
    largest_update: float


def check_contribution(site: str, reply: Message, terms: RoundTerms) -> Checked:
    """Check a site's answer to `train_round`. Raises `ContributionExcluded` with the first reason found.

    The round and the plan must be the asked ones, the number of cases at most the declared one. The tensors must be
    those that were sent, in name, shape and type: nothing is cast or broadcast. Every value is finite, the update
    bounded.
    """
    try:
        contribution = Contribution.model_validate(reply.meta)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise ContributionExcluded(_CODES.get(field, MALFORMED), f"{field}: missing or malformed") from None
    if contribution.round != terms.number:
        raise ContributionExcluded("wrong-round", f"answers round {contribution.round}, not {terms.number}")
    if contribution.plan != terms.plan:
        raise ContributionExcluded("wrong-plan", "was trained by another plan than the agreed one")
    if contribution.cases > terms.cases[site]:
        raise ContributionExcluded("wrong-weight", f"has {contribution.cases} cases, declared {terms.cases[site]}")
    check_tensors(reply.arrays, terms.weights)
    return Checked(contribution, _check_update(reply.arrays, terms))


def check_tensors(given: Mapping[str, Array], sent: Weights) -> None:
    """Whether tensors are those of the network that was sent: names, shapes, types, all of it finite.

    Raises `ContributionExcluded` with the first reason found.
    """
    if given.keys() != sent.keys():
        missing, unknown = len(sent.keys() - given.keys()), len(given.keys() - sent.keys())
        raise ContributionExcluded("wrong-tensors", f"{missing} tensors are missing, {unknown} are unknown")
    for name in sorted(sent):
        array, expected = given[name], sent[name]
        if array.shape != expected.shape:
            raise ContributionExcluded("wrong-shape", f"{name}: {list(array.shape)}, not {list(expected.shape)}")
        if array.dtype != expected.dtype:
            raise ContributionExcluded("wrong-dtype", f"{name}: {array.dtype}, not {expected.dtype}")
        if not np.all(np.isfinite(array)):
            raise ContributionExcluded("not-finite", f"{name}: holds a value that is not a finite number")


def _check_update(given: Mapping[str, Array], terms: RoundTerms) -> float:
    floats = [name for name, array in sorted(terms.weights.items()) if array.dtype.kind == "f"]
    sent = _norm(terms.weights[name] for name in floats)
    moved = _norm(np.subtract(given[name], terms.weights[name], dtype=np.float64) for name in floats)
    update = moved / max(sent, 1.0)
    if not update <= terms.largest_update:
        raise ContributionExcluded("update-too-large", f"{update:.3g} times the weights; {terms.largest_update:g} may")
    return update


def _norm(arrays: Iterable[Array]) -> float:
    """The L2 norm over all arrays, in float64; infinite where that is exceeded."""
    with np.errstate(over="ignore"):
        return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))
