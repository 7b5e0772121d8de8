"""What a researcher's app says of itself: the files it must have, and its `config.json`. Pure.

Whoever starts a run and whoever carries it out read it by the same code.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flip_contracts.base import TrustCode
from flip_contracts.projects import Framework

CONFIG = "config.json"
REQUIRED_FILES: Mapping[Framework, tuple[str, ...]] = {
    "nvflare": ("trainer.py", "validator.py"),
    "flower": ("client_app.py", "pyproject.toml"),
}
"""The files without which an app can't train, by framework. A Flower app has `client_app.py` in any folder."""

Aggregator = Literal["InTimeAccumulateWeightedAggregator", "AccumulateWeightedAggregator"]
Rounds = Annotated[int, Field(ge=1, le=99)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, with the field as it is written in the file."""

    field: str
    detail: str


class AppConfigInvalid(ValueError):
    """An app's `config.json` can't be used. `problems` has all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{problem.field}: {problem.detail}" for problem in problems))


class AppConfig(BaseModel):
    """The part of an NVFLARE app's `config.json` that the platform acts on. Other keys are the app's own."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    global_rounds: Annotated[Rounds, Field(alias="GLOBAL_ROUNDS")] = 1
    local_rounds: Annotated[Rounds, Field(alias="LOCAL_ROUNDS")] = 1
    """For the app's own code, which reads it from the file."""
    ignore_result_error: Annotated[bool, Field(alias="IGNORE_RESULT_ERROR")] = False
    """Whether a round goes on without a Trust whose result can't be used."""
    aggregator: Annotated[Aggregator, Field(alias="AGGREGATOR")] = "InTimeAccumulateWeightedAggregator"
    aggregation_weights: Annotated[dict[TrustCode, Weight], Field(alias="AGGREGATION_WEIGHTS")] = {}
    """Factors on a Trust's iterations when results are averaged; 1 for a Trust not named."""

    def check_trusts(self, trusts: Collection[TrustCode]) -> None:
        """Whether it fits a run over these Trusts. Raises `AppConfigInvalid`."""
        problems = [
            Problem(f"AGGREGATION_WEIGHTS.{trust}", "is no Trust of this run")
            for trust in sorted(self.aggregation_weights.keys() - set(trusts))
        ]
        if not problems and not any(self.aggregation_weights.get(trust, 1.0) for trust in trusts):
            problems.append(Problem("AGGREGATION_WEIGHTS", "no Trust counts"))
        if problems:
            raise AppConfigInvalid(problems)


def read_app_config(text: bytes | None) -> AppConfig:
    """The configuration in a `config.json`; of an app without one all defaults.

    Raises `AppConfigInvalid` with every field that is wrong.
    """
    try:
        return AppConfig.model_validate(app_settings(text))
    except ValidationError as error:
        raise AppConfigInvalid([_problem(each["loc"], each["msg"]) for each in error.errors()]) from None


def app_settings(text: bytes | None) -> dict[str, Any]:
    """All that a `config.json` holds. Raises `AppConfigInvalid` if it is no JSON object, or says a thing twice."""
    if text is None:
        return {}
    try:
        settings: object = json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AppConfigInvalid([Problem(CONFIG, f"is not JSON: {error}")]) from None
    if not isinstance(settings, dict):
        raise AppConfigInvalid([Problem(CONFIG, "must be a JSON object")])
    return cast("dict[str, Any]", settings)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in pairs:
        if key in settings:
            raise AppConfigInvalid([Problem(key, "stands there twice")])
        settings[key] = value
    return settings


def _problem(location: tuple[int | str, ...], message: str) -> Problem:
    return Problem(".".join(str(part) for part in location if part != "[key]"), message)
