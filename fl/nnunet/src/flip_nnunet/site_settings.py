"""What a Trust says about itself in the environment of its framework's client; never the hub's word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from flip_nnunet.attempt import checked_run_id
from flip_nnunet.sandbox import Box, SandboxSettings

_PREPARED = "prepared.json"


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A Trust's folder of prepared runs, its disclosure threshold and the sandbox of its trainers."""

    runs: Path
    """`<run id>/` is prepared by the platform's worker and only read here: `nnUNet_raw/DatasetXYZ_name`, and
    `prepared.json`, which names the project. Absolute, without symbolic links."""
    minimum_cases: int
    """With fewer cases the Trust answers no question."""
    sandbox: SandboxSettings
    prefix: str
    """What the names of its variables begin with."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], prefix: str) -> Self:
        """Read `<prefix>_RUNS`, `<prefix>_MINIMUM_CASES` and `<prefix>_SANDBOX` (JSON, by default `{}`).

        Raises ValueError naming what is missing or malformed.
        """
        its_runs, its_minimum, its_sandbox = _names(prefix)
        runs, cases = Path(environment.get(its_runs, "")), environment.get(its_minimum, "")
        if not runs.is_absolute():
            raise ValueError(f"{its_runs}: must name the folder of prepared runs by an absolute path")
        if not cases.isdecimal() or int(cases) < 1:
            raise ValueError(f"{its_minimum}: must be a number of cases, at least 1")
        try:
            sandbox = SandboxSettings.model_validate_json(environment.get(its_sandbox, "{}"))
        except ValidationError as refused:
            wrong = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in refused.errors())
            raise ValueError(f"{its_sandbox}: {wrong}") from refused
        return cls(runs.resolve(), int(cases), sandbox, prefix)

    def data(self, run_id: str) -> Path:
        return self.runs / run_id

    def work(self, run_id: str) -> Path:
        """The trainers' own of the run's project: `preprocessed/`, kept over runs, and `runs/<run id>/`.

        Raises ValueError if the run has not been prepared.
        """
        return self.runs / ".site" / self._project(run_id)  # no run can have that name

    def box(self, run_id: str, code: Path) -> Box:
        """What a run's trainer may have at this Trust: its own data, its project's work, and the package in `code`."""
        work = self.work(run_id)
        return Box(
            readable=(self.data(run_id), code),
            writable=(work / "preprocessed", work / "runs" / run_id),
            environment=_names(self.prefix),
        )

    def _project(self, run_id: str) -> str:
        record = self.data(run_id) / _PREPARED
        try:
            return checked_run_id(json.loads(record.read_bytes())["project_id"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"run {run_id}: {_PREPARED} does not say whose it is ({type(error).__name__})") from error


def _names(prefix: str) -> tuple[str, str, str]:
    return f"{prefix}_RUNS", f"{prefix}_MINIMUM_CASES", f"{prefix}_SANDBOX"
