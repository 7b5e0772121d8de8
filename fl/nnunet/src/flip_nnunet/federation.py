"""The federated algorithm, once, for any transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flip_nnunet.job import Job
from flip_nnunet.message import Json, Message, Weights


class Sites(Protocol):
    """The sites of one run, behind whatever carries messages to them."""

    def names(self) -> list[str]:
        """The sites that take part."""
        ...

    def ask(self, operation: str, message: Message, sites: Sequence[str] | None = None) -> dict[str, Message]:
        """Ask `sites` (None: all) at once and wait for every answer.

        Each site answers with `Worker.handle(operation, message)`. Raises `SitesFailed`, which carries the good
        answers, if a site reports a failure or cannot be reached (`message.settle` does so for given answers).
        """
        ...


class Store(Protocol):
    """What the hub keeps of one run."""

    def save_round(self, number: int, weights: Weights) -> str:
        """Keep the aggregated weights of a round; returns their digest (`message.weights_digest`)."""
        ...

    def load_round(self, number: int) -> Weights:
        """The weights that `save_round` kept. Raises `RoundMissing`."""
        ...

    def save_record(self, name: str, record: Json) -> None:
        """Keep a JSON record of the run, such as `fingerprint` or `plan`."""
        ...

    def results(self) -> Path:
        """The folder in which the results are made."""
        ...


Tell = Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left behind."""

    plan_digest: str
    weights_digest: str
    cases: dict[str, int]
    rounds: int
    archive: Path
    """The results as a zip."""
    archive_sha256: str


def federate(sites: Sites, job: Job, store: Store, tell: Tell) -> Outcome:
    """Plan, train and export `job` over `sites`."""
    raise NotImplementedError
