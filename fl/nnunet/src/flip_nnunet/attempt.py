"""One try at a run, as it is submitted at the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def checked_run_id(run_id: str) -> str:
    """`run_id`, which names folders and so may hold letters, digits, `_` and `-` only. Raises ValueError."""
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"run_id: {run_id!r} must match {_RUN_ID.pattern}")
    return run_id


def check_run(of_job: str, of_trainer: str) -> None:
    """Whether a job is of the run that its trainer was started for. Raises ValueError."""
    if of_job != of_trainer:
        raise ValueError(f"run_id: the job is of run {of_job}, the trainer was started for {of_trainer}")


def run_of(token: str) -> str:
    """The id of the run whose attempt `token` names. Raises ValueError."""
    run_id, _, number = token.rpartition(".")
    if not number.isdecimal():
        raise ValueError(f"token: {token!r} names no attempt")
    return checked_run_id(run_id)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a run over some Trusts. `job` is a `flip_nnunet.job.Job` as JSON; `run_folder` is the hub's."""

    run_id: str
    number: int
    trusts: tuple[str, ...]
    run_folder: Path
    job: dict[str, Any]

    def __post_init__(self) -> None:
        checked_run_id(self.run_id)
        if self.job.get("run_id") != self.run_id:
            raise ValueError("job: its run_id must be the run's")
        if self.number < 1:
            raise ValueError("attempt: counts from 1")
        if not self.trusts:
            raise ValueError("trusts: at least one")
        if not self.run_folder.is_absolute():
            raise ValueError("run_folder: must be an absolute path")

    @property
    def token(self) -> str:
        """Names the attempt: the framework has one job a token, however often the attempt is submitted."""
        return f"{self.run_id}.{self.number}"
