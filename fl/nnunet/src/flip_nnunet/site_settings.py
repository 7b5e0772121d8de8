"""What a Trust says about itself in the environment of its framework's client; never the hub's word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import ValidationError

from flip_nnunet.attempt import checked_run_id
from flip_nnunet.sandbox import Box, SandboxSettings

Predictions = Literal["masks", "scores"]
"""What a Trust gives of what was predicted on its images: the masks with their scores, or the scores alone."""
CAUTIOUS: Predictions = "scores"
"""What a Trust gives that has not said so."""
_PREDICTIONS: dict[str, Predictions] = {name: name for name in get_args(Predictions)}
_PREPARED = "prepared.json"


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A Trust's folders, what it lets out and the sandbox of its trainers."""

    runs: Path
    """`<run id>/` is prepared by the platform's worker and only read here: the data, and `prepared.json`, which names
    the project. Absolute, without symbolic links."""
    minimum_cases: int
    """With fewer cases the Trust answers no question."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    predictions: Predictions = CAUTIOUS
    models: Path | None = None
    """The folder in which models lie that a prediction may name by their path; None where there are none."""
    variables: tuple[str, ...] = ()
    """The environment variables that all this was read from."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], prefix: str) -> Self:
        """Read `<prefix>_RUNS` and `<prefix>_MINIMUM_CASES`, and these if given: `<prefix>_SANDBOX` (JSON),
        `<prefix>_PREDICTIONS` and `<prefix>_MODELS`.

        Raises ValueError naming what is missing or malformed.
        """
        variables = tuple(f"{prefix}_{name}" for name in ("RUNS", "MINIMUM_CASES", "SANDBOX", "PREDICTIONS", "MODELS"))
        its_runs, its_minimum, its_sandbox, its_predictions, its_models = variables
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
        try:
            sandbox = SandboxSettings.model_validate_json(environment.get(its_sandbox, "{}"))
        except ValidationError as refused:
            wrong = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in refused.errors())
            raise ValueError(f"{its_sandbox}: {wrong}") from refused
        folder_of_models = None if models is None else Path(models).resolve()
        return cls(runs.resolve(), int(cases), sandbox, predictions, folder_of_models, variables)

    def data(self, run_id: str) -> Path:
        return self.runs / run_id

    def work(self, run_id: str) -> Path:
        """The trainers' own of the run's project: `preprocessed/`, kept over runs, and `runs/<run id>/`.

        Raises ValueError if the run has not been prepared.
        """
        return self.runs / ".site" / self._project(run_id)  # no run can have that name

    def box(self, run_id: str, *code: Path) -> Box:
        """What a run's trainer may have at this Trust: its own data, its project's work, models, and the code."""
        work = self.work(run_id)
        models = () if self.models is None else (self.models,)
        return Box(
            readable=(self.data(run_id), *models, *code),
            writable=(work / "preprocessed", work / "runs" / run_id),
            environment=self.variables,
        )

    def _project(self, run_id: str) -> str:
        record = self.data(run_id) / _PREPARED
        try:
            return checked_run_id(json.loads(record.read_bytes())["project_id"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"run {run_id}: {_PREPARED} does not say whose it is ({type(error).__name__})") from error
