"""What a site says beside its weights, checked at the hub before anyone is told."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from flip_contracts.base import Sha256
from flip_nnunet.message import MALFORMED, Message, SiteFailure, Weights, failure_of
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from flip_apps.site import Point
from flip_apps.ties import Ties

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./%()-]{0,63}$")]
_Version = Annotated[str, Field(max_length=100)]
_MOST_POINTS, _MOST_METRICS, _MOST_PACKAGES, _MOST_NAMES = 10_000, 1_000, 100, 100_000


class Installed(BaseModel):
    """What a site says once it has loaded an app."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    versions: Annotated[dict[_Label, _Version], Field(max_length=_MOST_PACKAGES)]
    cases: PositiveInt
    """The studies of the run's data."""
    data: Sha256
    """The digest of that data."""
    local_model: bool
    each_round: bool


class _Point(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    label: _Label
    value: _Number
    x: _Number
    axis: _Label


class _Round(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    points: Annotated[list[_Point], Field(max_length=_MOST_POINTS)]
    score: _Number | None


class _Validated(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    metrics: Annotated[dict[_Label, _Number | None], Field(max_length=_MOST_METRICS)]


class _Network(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    ties: Annotated[dict[str, str], Field(max_length=_MOST_NAMES)]


class AnswerInvalid(ValueError):
    """A site's answer holds what it may not; `failure` stands for it."""

    def __init__(self, error: ValidationError | SiteFailure) -> None:
        self.failure = error if isinstance(error, SiteFailure) else _malformed(str(error.errors()[0]["loc"][0]))
        super().__init__(self.failure.detail)


def _malformed(field: str) -> SiteFailure:
    return SiteFailure(MALFORMED, f"{field}: missing or malformed")


def installed(answer: Message) -> Installed:
    """What an answer to `install` says. Raises `AnswerInvalid`."""
    try:
        return Installed.model_validate(answer.meta)
    except ValidationError as error:
        raise AnswerInvalid(error) from None


def network(answer: Message) -> tuple[Weights, Ties]:
    """The first weights in an answer to `initialise`, and the other names of its tensors.

    Raises `AnswerInvalid`, for an answer that reports a failure, too.
    """
    if (failure := failure_of(answer)) is not None:
        raise AnswerInvalid(failure)
    weights = answer.arrays
    if not weights or not all(np.all(np.isfinite(array)) for array in weights.values()):
        none = SiteFailure("not-finite", "its first weights are none, or hold a value that is no finite number")
        raise AnswerInvalid(none)
    try:
        ties = _Network.model_validate(answer.meta).ties
    except ValidationError as error:
        raise AnswerInvalid(error) from None
    if ties.keys() & weights.keys() or not set(ties.values()) <= weights.keys():
        raise AnswerInvalid(_malformed("ties"))
    return weights, ties


def said_in_round(answer: Message) -> tuple[list[Point], float | None]:
    """The points of metrics and the score in an answer to `train_round`. Raises `AnswerInvalid`."""
    try:
        said = _Round.model_validate(answer.meta)
    except ValidationError as error:
        raise AnswerInvalid(error) from None
    return [Point(**point.model_dump()) for point in said.points], said.score


def validated(answer: Message) -> dict[str, float | None]:
    """The metrics in an answer to `validate`, None for one that was not finite. Raises `AnswerInvalid`."""
    try:
        return _Validated.model_validate(answer.meta).metrics
    except ValidationError as error:
        raise AnswerInvalid(error) from None
