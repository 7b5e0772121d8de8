"""What a Trust says about itself in the environment of its framework's client; never the hub's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A Trust's folder of prepared runs and its disclosure threshold."""

    runs: Path
    """`<run id>/nnUNet_raw/DatasetXYZ_name` is prepared by the platform's worker and only read here."""
    minimum_cases: int
    """With fewer cases the Trust answers no question."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], prefix: str) -> Self:
        """Read `<prefix>_RUNS` and `<prefix>_MINIMUM_CASES`. Raises ValueError naming what is missing or malformed."""
        its_runs, its_minimum = f"{prefix}_RUNS", f"{prefix}_MINIMUM_CASES"
        runs, cases = Path(environment.get(its_runs, "")), environment.get(its_minimum, "")
        if not runs.is_absolute():
            raise ValueError(f"{its_runs}: must name the folder of prepared runs by an absolute path")
        if not cases.isdecimal() or int(cases) < 1:
            raise ValueError(f"{its_minimum}: must be a number of cases, at least 1")
        return cls(runs, int(cases))

    def data(self, run_id: str) -> Path:
        return self.runs / run_id

    @property
    def work(self) -> Path:
        """The trainer's own: `preprocessed/`, kept over runs, and `runs/<run id>/`. Its name cannot be a run's id."""
        return self.runs / ".site"
