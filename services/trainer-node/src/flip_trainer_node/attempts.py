"""What a controller keeps to itself of an attempt; what others need to know it says on its nets' topics."""

from typing import Any, Literal

from flip_contracts.base import Event, ReasonCode, Sha256, Topic, TrustCode
from flip_contracts.scheduler import RunAssigned
from flip_contracts.trainer_node import Difference
from pydantic import AwareDatetime

ATTEMPT = Topic(
    "flip.trainer-node.attempt",
    key="attempt_id",
    owner="trainer-node",
    description="The attempts of one net's controller.",
    local=True,
)


class AttemptTaken(Event, topic=ATTEMPT, version=1):
    """The scheduler gave the net a run; its Trusts were asked to prepare it."""

    attempt_id: str
    assigned: RunAssigned


class TrustPrepared(Event, topic=ATTEMPT, version=1):
    """A Trust's data set is ready. `said_at` is when the Trust said so, by its own clock."""

    attempt_id: str
    trust: TrustCode
    cases: int
    dataset_digest: Sha256
    cohort_digest: Sha256 | None = None
    said_at: AwareDatetime | None = None


class TrustOmitted(Event, topic=ATTEMPT, version=1):
    """The attempt goes on without the Trust, which can't take part or is silent."""

    attempt_id: str
    trust: TrustCode
    reason: ReasonCode


class JobSubmitted(Event, topic=ATTEMPT, version=1):
    """The federated job was handed to the framework. `record` is what it trains, profile and seed included."""

    attempt_id: str
    job: str
    record: dict[str, Any]


class AttemptClosing(Event, topic=ATTEMPT, version=1):
    """The attempt is being ended at the hub and at every Trust, for this reason."""

    attempt_id: str
    outcome: Literal["collected", "stopped", "interrupted", "failed"]
    reason: ReasonCode
    detail: str = ""
    differences: tuple[Difference, ...] = ()


class TrustEnded(Event, topic=ATTEMPT, version=1):
    """No process of the attempt is left at the Trust."""

    attempt_id: str
    trust: TrustCode


class AttemptOver(Event, topic=ATTEMPT, version=1):
    """The outcome was told."""

    attempt_id: str


class AttemptClosed(Event, topic=ATTEMPT, version=1):
    """The net can take the next run: nothing of the attempt is left anywhere but, maybe, at those Trusts whose word
    was waited for in vain."""

    attempt_id: str
    unconfirmed: frozenset[TrustCode] = frozenset()
