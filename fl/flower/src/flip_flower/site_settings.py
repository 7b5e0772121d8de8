"""What a Trust says about itself in the environment of its Flower node; never the hub's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_RUNS, _MINIMUM_CASES = "FLIP_FLOWER_RUNS", "FLIP_FLOWER_MINIMUM_CASES"


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A Trust's folder of prepared runs and its disclosure threshold."""

    runs: Path
    """`<run id>/nnUNet_raw/DatasetXYZ_name` is prepared by the platform's worker and only read here."""
    minimum_cases: int
    """With fewer cases the Trust answers no question."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read FLIP_FLOWER_RUNS and FLIP_FLOWER_MINIMUM_CASES. Raises ValueError naming what is missing or wrong."""
        runs, cases = Path(environment.get(_RUNS, "")), environment.get(_MINIMUM_CASES, "")
        if not runs.is_absolute():
            raise ValueError(f"{_RUNS}: must name the folder of prepared runs by an absolute path")
        if not cases.isdecimal() or int(cases) < 1:
            raise ValueError(f"{_MINIMUM_CASES}: must be a number of cases, at least 1")
        return cls(runs, int(cases))

    def data(self, run_id: str) -> Path:
        return self.runs / run_id

    @property
    def work(self) -> Path:
        """The trainer's own: `preprocessed/`, kept over runs, and `runs/<run id>/`. Its name cannot be a run's id."""
        return self.runs / ".site"
