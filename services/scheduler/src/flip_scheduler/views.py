"""What the routes answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from flip_chassis.database import Row
from flip_contracts.base import ModelId, NetName, ProjectId, RunId, TrustCode
from flip_contracts.projects import Framework, Job
from flip_contracts.scheduler import Checkpoint, Resources
from pydantic import BaseModel

from flip_scheduler.durations import History
from flip_scheduler.fairness import Waiting
from flip_scheduler.matching import Net, NetState, waits_for
from flip_scheduler.outlook import Estimate, Held, Outlook, Unknown, outlooks

State = Literal[
    "queued",
    "assigned",
    "preparing",
    "training",
    "predicting",
    "collecting",
    "stopping",
    "stopped",
    "finished",
    "failed",
]
_STATE_OF_STAGE: dict[str, State] = {
    "assigned": "assigned",
    "preparing": "preparing",
    "fingerprint": "preparing",
    "planning": "preparing",
    "preprocessing": "preparing",
    "training": "training",
    "validating": "training",
    "predicting": "predicting",
    "collecting": "collecting",
}


class News(BaseModel):
    """One entry of a run's timeline."""

    number: int
    at: datetime
    kind: str
    attempt: int
    facts: dict[str, Any]


class Start(BaseModel):
    """When a waiting run may start, or why nobody can say.

    The time rests on the run before it on its net, taken to last for `takes_s` as `runs` finished ones of its kind did,
    of its project or, where those are too few, of its framework. Without a basis the net is free already.
    """

    at: datetime | None
    unknown_because: Unknown | None = None
    basis: Literal["project", "framework"] | None = None
    runs: int | None = None
    takes_s: float | None = None

    @classmethod
    def of(cls, outlook: Outlook) -> Self:
        """As the outlook says."""
        start = outlook.start
        if not isinstance(start, Estimate):
            return cls(at=None, unknown_because=start)
        if start.basis is None:
            return cls(at=start.starts_at)
        basis = start.basis
        return cls(at=start.starts_at, basis=basis.of, runs=basis.runs, takes_s=basis.takes.total_seconds())


class Lack(BaseModel):
    """What a waiting run waits for."""

    code: Literal[
        "nets-busy", "no-net", "net-draining", "net-silent", "trusts-not-connected", "resources-missing", "resting"
    ]
    detail: str
    nets: list[NetName] = []
    trusts: list[TrustCode] = []


class RunView(BaseModel):
    """A run as it stands. While it is queued, `queue_position` counts from 1 those that compete for the same nets."""

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    framework: Framework
    job: Job
    trusts: list[TrustCode]
    minimum_trusts: int | None
    taking_part: list[TrustCode] | None
    resources: Resources
    aggregation_weights: dict[TrustCode, float]
    payload: dict[str, Any]
    files: dict[str, str]
    priority: int
    state: State
    stage: str
    queue_position: int | None
    waits_for: list[Lack]
    start: Start | None
    net: NetName | None
    attempt: int
    rounds: int | None
    rounds_done: int
    continues: RunId | None
    checkpoint: Checkpoint | None
    results: str | None
    reason: str | None
    detail: str
    queued_at: datetime
    ended_at: datetime | None


class RunWithTimeline(RunView):
    """A run with everything that happened to it, oldest first."""

    timeline: list[News]


class QueueEntry(BaseModel):
    """A waiting run with what decides its place: its priority, what waiting has made of it, its project's weight."""

    run_id: RunId
    project_id: ProjectId
    framework: Framework
    priority: int
    level: int
    weight: int
    queued_at: datetime
    queue_position: int
    waits_for: list[Lack]
    start: Start


class Metric(BaseModel):
    """A metric of one Trust in one round, at `x` on its axis."""

    trust: TrustCode
    name: str
    round: int
    axis: str
    x: float
    attempt: int
    value: float
    at: datetime


class NetView(BaseModel):
    """A net as it was last heard of. `silent`: it holds no run, and was not heard of for a lease's time. A draining net
    is given no further run; it is drained once it holds none."""

    net: NetName
    framework: Framework
    trusts: list[TrustCode]
    resources: dict[TrustCode, Resources]
    state: NetState
    draining: bool
    draining_because: str | None
    draining_since: datetime | None
    run_id: RunId | None
    heard_at: datetime

    @classmethod
    def of(cls, row: Row) -> Self:
        """From the net's row."""
        return cls.model_validate(dict(row))


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue as it stands: the waiting runs in order, the nets, and what each run can expect."""

    runs: Mapping[RunId, Waiting] = field(default_factory=dict[RunId, Waiting])
    nets: Sequence[Net] = ()
    expected: Mapping[RunId, Outlook] = field(default_factory=dict[RunId, Outlook])

    @classmethod
    def of(
        cls, runs: Sequence[Waiting], nets: Sequence[Net], held: Sequence[Held], history: History, now: datetime
    ) -> Self:
        """The queue at this moment."""
        return cls({run.run_id: run for run in runs}, nets, outlooks(runs, nets, held, history, now))

    def place(self, run_id: RunId) -> dict[str, Any]:
        """Position, start and what is lacking, of a run; of one that doesn't wait, none."""
        outlook = self.expected.get(run_id)
        if outlook is None:
            return {"queue_position": None, "waits_for": [], "start": None}
        lacks = waits_for(self.runs[run_id], self.nets)
        return {"queue_position": outlook.position, "waits_for": lacks, "start": Start.of(outlook).model_dump()}

    def view(self, row: Row) -> RunView:
        """A run, from its row."""
        state = state_of(row["status"], row["stage"])
        return RunView.model_validate({**row, "state": state, **self.place(row["run_id"])})


def state_of(status: str, stage: str) -> State:
    """The run's state by DESIGN's machine: an assigned run is where its net says it is."""
    if status == "assigned":
        return _STATE_OF_STAGE[stage]
    return status  # pyright: ignore[reportReturnType] - the database holds no other status
