"""What a net says, what its controller asks of a Trust's worker, and what the worker reports."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flip_contracts.base import Command, Event, NetName, Open, ProjectId, ReasonCode, Report, RunId, Sha256, TrustCode
from flip_contracts.projects import Framework
from flip_contracts.scheduler import Checkpoint, Resources
from flip_contracts.topics import NET, TRAINING, TRAINING_COMMANDS, TRAINING_REPORTS, WORKER_REPORTS

NetState = Literal["starting", "free", "assigned", "running", "cleaning"]
Stage = Literal[
    "preparing", "fingerprint", "planning", "preprocessing", "training", "validating", "predicting", "collecting"
]


class NetFree(Event, topic=NET, version=1):
    """The net can take a run: its server is up and these Trusts are connected.

    `fencing` is that of the last assignment it has heard of and done with, 0 before the first: a net that has not heard
    of its present assignment yet is not free. `resources` is what the net has for a run at each Trust; where a Trust is
    not named there, its operator has not said, and nothing is matched.
    """

    net: NetName
    framework: Framework
    trusts: frozenset[TrustCode]
    fencing: int = 0
    resources: dict[TrustCode, Resources] = Field(default_factory=dict[TrustCode, Resources])


class NetHeartbeat(Event, topic=NET, version=1):
    """The net is alive. It renews the lease of the run that the net holds."""

    net: NetName
    state: Annotated[NetState, Open("running")]
    trusts: frozenset[TrustCode]
    run_id: RunId | None = None
    fencing: int | None = None


class RunPrepared(Event, topic=TRAINING, version=1):
    """A Trust built the run's data set from its frozen cohort and checked it.

    `cohort_digest` is over the project and the members of the cohort as they were then.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trust: TrustCode
    cases: int
    dataset_digest: Sha256
    cohort_digest: Sha256 | None = None


class TrustLeftOut(Event, topic=TRAINING, version=1):
    """A Trust takes no part in this attempt, for the reason said; enough others do, and it goes on with them."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trust: TrustCode
    reason: ReasonCode


class StageReached(Event, topic=TRAINING, version=1):
    """The run went on to the next stage."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    stage: Annotated[Stage, Open("training")]


class PlanAgreed(Event, topic=TRAINING, version=1):
    """Every Trust planned from the federated fingerprint, and all plans have this digest."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    plan_digest: Sha256
    by_trust: dict[TrustCode, Sha256]


class TrainingStarted(Event, topic=TRAINING, version=1):
    """The first round of this attempt began."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    first_round: int
    rounds: int


class RoundComplete(Event, topic=TRAINING, version=1):
    """The Trusts' weights of a round were averaged and stored. Rounds count from 0.

    `size_bytes` and `file_digest`, a SHA-256, are of the object that the checkpoint names.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    fencing: int
    rounds: int
    checkpoint: Checkpoint
    trusts: frozenset[TrustCode]
    size_bytes: int | None = None
    file_digest: Sha256 | None = None


class ContributionExcluded(Event, topic=TRAINING, version=1):
    """A Trust's answer to a round can't count, for the reason said; the round goes on without it where enough are left.

    Rounds count from 0.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trust: TrustCode
    round: int
    reason: ReasonCode


class ResultIgnored(Event, topic=TRAINING, version=1):
    """What a Trust answered outside of rounds can't be used, or isn't there; the run goes on without it.

    Its app asks for that, or it is the model of a Trust that has trained no round of this attempt.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trust: TrustCode
    operation: str
    reason: ReasonCode


class MetricReported(Event, topic=TRAINING, version=1):
    """A metric of one Trust in one round. A prediction has no rounds; its scores are told with round 0.

    A researcher's app may give several values in a round: each at `x` on the axis that `axis` names. Without them it is
    shown at its round.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trust: TrustCode
    round: int
    name: str
    value: float
    x: float | None = None
    axis: str | None = None


class ResultsCollected(Event, topic=TRAINING, version=1):
    """The run's results are zipped in the object store, not yet scanned.

    `seal` is the digest of the seal in the zip, which has those of all its files.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    fencing: int
    object: str
    name: str
    digest: Sha256
    size_bytes: int
    seal: Sha256 | None = None


class Difference(BaseModel):
    """A place where the Trusts' records of schema, plan or model differ, and each Trust's value there, as JSON.

    Both are shortened to what is safe to show; no record holds values of single cases.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    values: dict[TrustCode, str]


class AttemptEnded(Event, topic=TRAINING, version=1):
    """The attempt ended without a result: stopped, broken (it may be tried again), or wrong in itself (it may not).

    `differences` has the first of them where it failed because the Trusts' records differ.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    fencing: int
    outcome: Annotated[Literal["stopped", "interrupted", "failed"], Open("failed")]
    reason: ReasonCode
    detail: str = ""
    differences: tuple[Difference, ...] = ()


class EndUnconfirmed(Event, topic=TRAINING, version=1):
    """These Trusts have not said that the attempt has ended there; the net waits for their word no longer.

    Each of them ends what is left of the attempt before it prepares another run.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    trusts: frozenset[TrustCode]


class PrepareRun(Command, topic=TRAINING_COMMANDS, version=1):
    """Build the data set of this run from your frozen cohort's images and labels, and say how many cases it has."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    net: NetName
    payload: dict[str, Any]


class EndRun(Command, topic=TRAINING_COMMANDS, version=1):
    """End every process of this attempt; with `forget` also delete the run's prepared data and local checkpoints."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    net: NetName
    forget: bool


class TrustPreparedRun(Report, topic=TRAINING_REPORTS, version=1):
    """The Trust's data set of the run is ready."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    cases: int
    dataset_digest: Sha256
    cohort_digest: Sha256 | None = None


class TrustRefusedRun(Report, topic=TRAINING_REPORTS, version=1):
    """The Trust can't take part in the run, with the reason."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    reason: ReasonCode


class TrustEndedRun(Report, topic=TRAINING_REPORTS, version=1):
    """No process of the attempt is left at the Trust."""

    run_id: RunId
    project_id: ProjectId
    attempt: int


class WorkerStarted(Report, topic=WORKER_REPORTS, version=1):
    """The Trust's worker of this net started: whatever ran there before has ended."""

    net: NetName
