"""How long a run takes, by what finished runs of its kind took. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from typing import Any, Literal, Self

from flip_contracts.base import ProjectId
from flip_contracts.projects import Framework

FEWEST = 3
"""A median of fewer runs than this is no basis for an estimate."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What runs have in common whose durations are compared. Only nnU-Net's have a configuration and a device."""

    framework: Framework
    mode: str
    configuration: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run has to do: of a training, so many epochs; of anything else there is no measure but its kind."""

    kind: Kind
    epochs: int | None = None

    @classmethod
    def of(cls, framework: Framework, payload: Mapping[str, Any], rounds_done: int = 0) -> Self:
        """What a run with this payload has to do after so many rounds."""
        mode = payload["mode"]
        kind = Kind(framework, mode, payload.get("model_configuration"), payload.get("device"))
        if mode != "training":
            return cls(kind)
        first = max(rounds_done, payload["starting_fed_round"])
        return cls(kind, (payload["num_rounds"] - first) * payload["epochs_per_round"])


@dataclass(frozen=True, slots=True)
class Took:
    """How long a finished run took, in seconds: until its first round, and from there to its end."""

    effort: Effort
    lead_s: float
    rest_s: float


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate rests on: so many finished runs of the kind, of the project or of all; and what follows."""

    of: Literal["project", "framework"]
    runs: int
    takes: timedelta


@dataclass(frozen=True, slots=True)
class History:
    """What the latest runs took that finished at the first attempt, by their kind: of each project, and of all."""

    of_project: Mapping[tuple[ProjectId, Kind], Sequence[Took]] = field(
        default_factory=dict[tuple[ProjectId, Kind], Sequence[Took]]
    )
    of_all: Mapping[Kind, Sequence[Took]] = field(default_factory=dict[Kind, Sequence[Took]])

    def basis(self, project_id: ProjectId, effort: Effort) -> Basis | None:
        """How long the project's run takes: by its own of the kind, else by all of the kind. None: nobody knows."""
        own, all_ = self.of_project.get((project_id, effort.kind), ()), self.of_all.get(effort.kind, ())
        if len(own) >= FEWEST:
            return Basis("project", len(own), _expected(effort, own))
        return Basis("framework", len(all_), _expected(effort, all_)) if len(all_) >= FEWEST else None


def _expected(effort: Effort, took: Sequence[Took]) -> timedelta:
    """The median of what they took; of a training, the median of what came before its rounds, and of an epoch."""
    if effort.epochs is None:
        return timedelta(seconds=median(each.lead_s + each.rest_s for each in took))
    epoch_s = median(each.rest_s / each.effort.epochs for each in took if each.effort.epochs)
    return timedelta(seconds=median(each.lead_s for each in took) + effort.epochs * epoch_s)
