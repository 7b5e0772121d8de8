"""What a Trust says about itself in the environment of its framework's client; never the hub's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

Predictions = Literal["masks", "scores"]
"""What a Trust gives of what was predicted on its images: the masks with their scores, or the scores alone."""
CAUTIOUS: Predictions = "scores"
"""What a Trust gives that has not said so."""
_PREDICTIONS: dict[str, Predictions] = {name: name for name in get_args(Predictions)}


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A Trust's folders and what it lets out."""

    runs: Path
    """`<run id>/nnUNet_raw/DatasetXYZ_name` is prepared by the platform's worker and only read here."""
    minimum_cases: int
    """With fewer cases the Trust answers no question."""
    predictions: Predictions = CAUTIOUS
    models: Path | None = None
    """The folder in which models lie that a prediction may name by their path; None where there are none."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], prefix: str) -> Self:
        """Read `<prefix>_RUNS` and `<prefix>_MINIMUM_CASES`, and `<prefix>_PREDICTIONS` and `<prefix>_MODELS` if given.

        Raises ValueError naming what is missing or malformed.
        """
        its_runs, its_minimum = f"{prefix}_RUNS", f"{prefix}_MINIMUM_CASES"
        its_predictions, its_models = f"{prefix}_PREDICTIONS", f"{prefix}_MODELS"
        runs, cases = Path(environment.get(its_runs, "")), environment.get(its_minimum, "")
        predictions = _PREDICTIONS.get(environment.get(its_predictions, CAUTIOUS))
        models = environment.get(its_models)
        if not runs.is_absolute():
            raise ValueError(f"{its_runs}: must name the folder of prepared runs by an absolute path")
        if not cases.isdecimal() or int(cases) < 1:
            raise ValueError(f"{its_minimum}: must be a number of cases, at least 1")
        if predictions is None:
            raise ValueError(f"{its_predictions}: must be one of {', '.join(_PREDICTIONS)}")
        if models is not None and not Path(models).is_absolute():
            raise ValueError(f"{its_models}: must name the folder of models by an absolute path")
        return cls(runs, int(cases), predictions, None if models is None else Path(models))

    def data(self, run_id: str) -> Path:
        return self.runs / run_id

    @property
    def work(self) -> Path:
        """The trainer's own: `preprocessed/`, kept over runs, and `runs/<run id>/`. Its name cannot be a run's id."""
        return self.runs / ".site"
