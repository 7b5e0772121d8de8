"""Which waiting run is next: priority goes first, waiting raises it, and projects share by weight. Pure.

**Level.** A run's priority, from 0 to 9 with 4 for an ordinary one (as messages have in JMS), and one more for each
`aging` that it has waited, 9 at most. Of two runs the one of the higher level goes first.

**Share.** Within a level projects take turns by start-time fair queueing (Goyal, Vin, Cheng: "Start-time fair queueing:
a scheduling algorithm for integrated services packet switching networks", SIGCOMM 1996), an assignment being a packet
of length one. The project of weight `w` that is given a net is charged

    start  = max(virtual time at which its run came, the project's last finish)
    finish = start + TURN / w

and the virtual time is now `start`. The project of the least `start` goes first; within a project the oldest run. So
where all fit the same nets, a project of weight 2 is given two nets where one of weight 1 is given one, and one that
was idle has saved nothing up. While a project of weight `w` waits for a turn, one of `v` has 1 + v / w at most.

Start, finish and virtual time stand in the events of the assignments: the order follows from what was said alone.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush

from flip_contracts.base import ProjectId, RunId, TrustCode
from flip_contracts.projects import Framework
from flip_contracts.scheduler import Resources

from flip_scheduler.durations import Effort

LOWEST, ORDINARY, HIGHEST = 0, 4, 9
LIGHTEST, HEAVIEST = 1, 10
TURN = 2520
"""What a turn costs a project of weight 1. Every weight divides it, so shares are exact."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run in the queue: at least `minimum` of `trusts` have to take part, each with `resources`. One that rests is
    given no net before `rests_until`."""

    run_id: RunId
    project_id: ProjectId
    framework: Framework
    trusts: frozenset[TrustCode]
    queued_at: datetime
    minimum: int
    effort: Effort
    resources: Resources = field(default_factory=Resources)
    priority: int = ORDINARY
    virtual_time: int = 0
    rests_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A project's weight, and the `finish` of what it was charged last."""

    weight: int = LIGHTEST
    finish: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """What a project is charged for one assignment, in virtual time."""

    start: int
    finish: int


def charge(run: Waiting, share: Share) -> Charge:
    """What the run's project is charged if the run is given a net now."""
    start = max(run.virtual_time, share.finish)
    return Charge(start, start + TURN // share.weight)


def level(run: Waiting, now: datetime, aging: timedelta) -> int:
    """The run's priority with what its waiting has added."""
    return min(HIGHEST, run.priority + max(0, (now - run.queued_at) // aging))


def in_fair_order(
    waiting: Iterable[Waiting], shares: Mapping[ProjectId, Share], now: datetime, aging: timedelta
) -> list[Waiting]:
    """The queue: the order in which one net that fits all would be given the runs. A project not in `shares` is new."""

    def turn(project: ProjectId) -> tuple[int, int, datetime, RunId, ProjectId]:
        run = lines[project][0]
        return -level(run, now, aging), charge(run, known[project]).start, run.queued_at, run.run_id, project

    lines: dict[ProjectId, deque[Waiting]] = {}
    for run in sorted(waiting, key=lambda run: (-level(run, now, aging), run.queued_at, run.run_id)):
        lines.setdefault(run.project_id, deque()).append(run)
    known = {project: shares.get(project, Share()) for project in lines}
    first = [turn(project) for project in lines]
    heapify(first)
    order: list[Waiting] = []
    while first:
        *_, project = heappop(first)
        run = lines[project].popleft()
        known[project] = replace(known[project], finish=charge(run, known[project]).finish)
        order.append(run)
        if lines[project]:
            heappush(first, turn(project))
    return order
