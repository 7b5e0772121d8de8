"""How a waiting run stands: its place among those that compete for the same nets, and when it may start. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from flip_contracts.base import NetName, ProjectId, RunId
from flip_contracts.projects import Framework

from flip_scheduler.fairness import Waiting
from flip_scheduler.matching import Net

FEWEST = 3
"""A median of fewer runs than this is no basis for an estimate."""


@dataclass(frozen=True, slots=True)
class History:
    """How many seconds the latest runs took that finished at the first attempt: of each project, of each framework."""

    of_project: Mapping[ProjectId, Sequence[float]] = field(default_factory=dict[ProjectId, Sequence[float]])
    of_framework: Mapping[Framework, Sequence[float]] = field(default_factory=dict[Framework, Sequence[float]])

    def basis(self, project_id: ProjectId, framework: Framework) -> "Basis | None":
        """How long a run of the project takes: by its own runs, else by all of the framework. None: nobody knows."""
        own, all_ = self.of_project.get(project_id, ()), self.of_framework.get(framework, ())
        if len(own) >= FEWEST:
            return Basis("project", len(own), timedelta(seconds=median(own)))
        return Basis("framework", len(all_), timedelta(seconds=median(all_))) if len(all_) >= FEWEST else None


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate rests on: the median duration of so many finished runs of the project or of the framework."""

    of: Literal["project", "framework"]
    runs: int
    median: timedelta


@dataclass(frozen=True, slots=True)
class Held:
    """A run that a net has, since when."""

    net: NetName
    project_id: ProjectId
    framework: Framework
    since: datetime


Unknown = Literal["no-net-fits", "no-finished-runs", "overdue"]
"""Why nobody can say: no net could take the run; too few runs have finished; a run lasts longer than such runs do."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a run may start; `basis` is that of the run before it on its net, None where the net is free already."""

    starts_at: datetime
    basis: Basis | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A run's place in its queue, from 1, and the estimate of its start, or why there is none."""

    position: int
    start: Estimate | Unknown


def outlooks(
    queue: Sequence[Waiting], nets: Sequence[Net], held: Sequence[Held], history: History, now: datetime
) -> dict[RunId, Outlook]:
    """How each run of the queue stands, the queue being in its order.

    Every run is taken to last for the median of its basis. In the order of the queue each is put on the net that fits
    it and is free first.
    """
    free_at = _free_at(nets, held, history, now)
    ahead: Counter[_Kind] = Counter()
    found: dict[RunId, Outlook] = {}
    for run in queue:
        kind = run.framework, frozenset(net.net for net in nets if net.fits(run))
        position = 1 + sum(number for other, number in ahead.items() if _compete(kind, other))
        found[run.run_id] = Outlook(position, _put(run, kind[1], free_at, history))
        ahead[kind] += 1
    return found


_Kind = tuple[Framework, frozenset[NetName]]
"""What matters of a run for its place: its framework, and the nets that fit it."""


def _compete(one: _Kind, other: _Kind) -> bool:
    """Whether one net could take either; of a run that fits no net now, nobody knows which will."""
    (framework, able), (others_framework, others_able) = one, other
    return framework == others_framework and (not able or not others_able or bool(able & others_able))


def _free_at(
    nets: Sequence[Net], held: Sequence[Held], history: History, now: datetime
) -> dict[NetName, Estimate | Unknown]:
    free_at: dict[NetName, Estimate | Unknown] = {net.net: Estimate(now, None) for net in nets}
    for run in held:
        basis = history.basis(run.project_id, run.framework)
        after = _after(run.since, basis)
        free_at[run.net] = after if not isinstance(after, Estimate) or after.starts_at > now else "overdue"
    return free_at


def _after(since: datetime, basis: Basis | None) -> Estimate | Unknown:
    """When a run that starts then has ended."""
    return "no-finished-runs" if basis is None else Estimate(since + basis.median, basis)


def _put(
    run: Waiting, able: frozenset[NetName], free_at: dict[NetName, Estimate | Unknown], history: History
) -> Estimate | Unknown:
    """Put the run on the net that is free first; where one may be so at any time, nobody can say which that is."""
    if not able:
        return "no-net-fits"
    free: dict[NetName, Estimate] = {}
    for net in sorted(able):
        at = free_at[net]
        if not isinstance(at, Estimate):
            return at
        free[net] = at
    first = min(free, key=lambda net: (free[net].starts_at, net))
    free_at[first] = _after(free[first].starts_at, history.basis(run.project_id, run.framework))
    return free[first]
