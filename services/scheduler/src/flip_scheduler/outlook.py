"""How a waiting run stands: its place among those that compete for the same nets, and when it may start. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from flip_contracts.base import NetName, ProjectId, RunId
from flip_contracts.projects import Framework

from flip_scheduler.durations import Basis, Effort, History
from flip_scheduler.fairness import Waiting
from flip_scheduler.matching import Net


@dataclass(frozen=True, slots=True)
class Held:
    """A run that a net has, since when."""

    net: NetName
    project_id: ProjectId
    effort: Effort
    since: datetime


Unknown = Literal["no-net-fits", "no-finished-runs", "overdue", "cleaning"]
"""Why nobody can say: no net could take the run; too few runs of the kind have finished; a run lasts longer than such
runs do; a net cleans up after a run, which lasts until its last Trust has done so."""


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

    Every run is taken to last as long as its basis says. In the order of the queue each is put on the net that fits
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
    free_at: dict[NetName, Estimate | Unknown] = {
        net.net: "cleaning" if net.state == "released" else Estimate(now, None) for net in nets
    }
    for run in held:
        basis = history.basis(run.project_id, run.effort)
        after = _after(run.since, basis)
        free_at[run.net] = after if not isinstance(after, Estimate) or after.starts_at > now else "overdue"
    return free_at


def _after(since: datetime, basis: Basis | None) -> Estimate | Unknown:
    """When a run that starts then has ended."""
    return "no-finished-runs" if basis is None else Estimate(since + basis.takes, basis)


def _put(
    run: Waiting, able: frozenset[NetName], free_at: dict[NetName, Estimate | Unknown], history: History
) -> Estimate | Unknown:
    """Put the run on the net that is free first.

    Where none is free already and one may be so at any time, nobody can say which that is.
    """
    if not able:
        return "no-net-fits"
    known: dict[NetName, Estimate] = {}
    unknown: list[Unknown] = []
    for net in sorted(able):
        at = free_at[net]
        if isinstance(at, Estimate):
            known[net] = at
        else:
            unknown.append(at)
    if unknown and all(at.basis is not None for at in known.values()):
        return unknown[0]
    first = min(known, key=lambda net: (known[net].starts_at, net))
    start = known[first]
    if run.rests_until is not None:
        start = replace(start, starts_at=max(start.starts_at, run.rests_until))
    free_at[first] = _after(start.starts_at, history.basis(run.project_id, run.effort))
    return start
