"""One attempt at a run, as its net's controller carries it through. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from flip_chassis.aggregate import Aggregate
from flip_contracts.base import Message, ProjectId, ReasonCode, RunId, Sha256, TrustCode
from flip_contracts.scheduler import BestRound, Checkpoint, RunAssigned
from flip_contracts.trainer_node import (
    AttemptEnded,
    Difference,
    EndRun,
    EndUnconfirmed,
    NetState,
    PrepareRun,
    TrustLeftOut,
    TrustPreparedRun,
)

from flip_trainer_node.attempts import (
    ATTEMPT,
    AttemptClosed,
    AttemptClosing,
    AttemptOver,
    AttemptTaken,
    JobSubmitted,
    TrustEnded,
    TrustOmitted,
    TrustPrepared,
)

Status = Literal["absent", "preparing", "running", "closing", "over", "closed"]
Outcome = Literal["collected", "stopped", "interrupted", "failed"]

NET_STATE: Mapping[Status, NetState] = {
    "preparing": "assigned",
    "running": "running",
    "closing": "cleaning",
    "over": "cleaning",
}
"""What a net is while its attempt is there; without an attempt it is starting or free."""
_NO_WORD = "no-word"
_PASSING = frozenset({_NO_WORD, "cohort-unreachable"})
"""Why a Trust takes no part in this attempt, and yet may in another."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt. `prepared` has what each ready Trust told, `left_out` why each other goes without the attempt,
    `ended` the Trusts where nothing of it is left."""

    status: Status = "absent"
    assigned: RunAssigned | None = None
    prepared: Mapping[TrustCode, TrustPrepared] = field(default_factory=dict[TrustCode, TrustPrepared])
    left_out: Mapping[TrustCode, ReasonCode] = field(default_factory=dict[TrustCode, ReasonCode])
    job: str | None = None
    closing: AttemptClosing | None = None
    ended: frozenset[TrustCode] = frozenset()

    @property
    def run(self) -> RunAssigned:
        """What was assigned, with the Trusts that take part. Raises LookupError for an attempt that is not there."""
        if self.assigned is None:
            raise LookupError("there is no such attempt")
        return self.assigned

    @property
    def id(self) -> str:
        """The attempt's id."""
        return attempt_id(self.run.run_id, self.run.attempt)

    @property
    def is_prepared(self) -> bool:
        """Whether the data set of every Trust that takes part is ready."""
        return self.status == "preparing" and frozenset(self.prepared) == self.run.trusts

    @property
    def silent(self) -> frozenset[TrustCode]:
        """The Trusts that have not said yet whether they are ready."""
        return self.run.trusts.difference(self.prepared)

    @property
    def asked(self) -> frozenset[TrustCode]:
        """The Trusts that were asked to prepare the run."""
        return self.run.trusts.union(self.left_out)

    @property
    def needed(self) -> int:
        """How many Trusts have to take part; all of them in a run that resumes, whose plan was made from their data."""
        run = self.run
        if run.minimum_trusts is None or run.has_own_round:
            return len(self.asked)
        return run.minimum_trusts

    @property
    def cohorts(self) -> Mapping[TrustCode, Sha256]:
        """The digest of each ready Trust's cohort."""
        told = {trust: ready.cohort_digest for trust, ready in self.prepared.items()}
        return {trust: digest for trust, digest in told.items() if digest is not None}

    @property
    def is_gone(self) -> bool:
        """Whether no Trust that takes part has anything of the attempt left. The others never had its job."""
        return self.ended == self.run.trusts


def attempt_id(run_id: RunId, attempt: int) -> str:
    """The id of an attempt; the framework knows it as the token of the submission."""
    return f"{run_id}.{attempt}"


def take(attempt: Attempt, assigned: RunAssigned) -> list[Message]:
    """Take what the scheduler assigned; once."""
    if attempt.status != "absent":
        return []
    return [AttemptTaken(attempt_id=attempt_id(assigned.run_id, assigned.attempt), assigned=assigned)]


def prepare(assigned: RunAssigned) -> PrepareRun:
    """What each Trust of the run is asked first."""
    return PrepareRun(
        run_id=assigned.run_id,
        project_id=assigned.project_id,
        attempt=assigned.attempt,
        net=assigned.net,
        payload=assigned.payload,
    )


def note_prepared(attempt: Attempt, trust: TrustCode, report: TrustPreparedRun, said_at: datetime) -> list[Message]:
    """A Trust that takes part is ready; once, and only while the attempt waits for it."""
    if attempt.status != "preparing" or trust not in attempt.run.trusts or trust in attempt.prepared:
        return []
    return [
        TrustPrepared(
            attempt_id=attempt.id,
            trust=trust,
            cases=report.cases,
            dataset_digest=report.dataset_digest,
            cohort_digest=report.cohort_digest,
            said_at=said_at,
        )
    ]


def submit(attempt: Attempt, job: str, record: dict[str, Any]) -> list[Message]:
    """The job is submitted. That is noted even where the attempt is being ended meanwhile: the job has to go, too."""
    if attempt.job is not None or attempt.status not in {"preparing", "closing"}:
        return []
    return [JobSubmitted(attempt_id=attempt.id, job=job, record=record)]


def close(
    attempt: Attempt,
    outcome: Outcome,
    reason: ReasonCode,
    detail: str = "",
    differences: tuple[Difference, ...] = (),
) -> list[Message]:
    """Begin to end the attempt. The first reason counts."""
    if attempt.status not in {"preparing", "running"}:
        return []
    closing = AttemptClosing(
        attempt_id=attempt.id, outcome=outcome, reason=reason, detail=detail, differences=differences
    )
    return [closing]


def refuse(attempt: Attempt, trust: TrustCode, reason: ReasonCode) -> list[Message]:
    """A Trust can't take part in the run: it goes on with the others where they are enough, and ends where not.

    It fails where another attempt would have too few Trusts, too. The first word of a Trust counts.
    """
    if attempt.status != "preparing" or trust not in attempt.silent:
        return []
    if omitted := _omit(attempt, {trust: reason}):
        return omitted
    without = {**attempt.left_out, trust: reason}
    for_good = [each for each, why in without.items() if why not in _PASSING]
    outcome = "failed" if len(attempt.asked.difference(for_good)) < attempt.needed else "interrupted"
    detail = " ".join(f"{each} can't take part: {why}." for each, why in sorted(without.items()))
    return close(attempt, outcome, reason, detail)


def omit_silent(attempt: Attempt) -> list[Message]:
    """The Trusts that have not said yet whether they are ready are waited for no longer."""
    if attempt.status != "preparing" or attempt.is_prepared:
        return []
    silent = sorted(attempt.silent)
    if omitted := _omit(attempt, dict.fromkeys(silent, _NO_WORD)):
        return omitted
    ready = f"{len(attempt.prepared)} of the {attempt.needed} Trusts that the run needs are ready"
    return close(attempt, "interrupted", "trusts-silent", f"No word of {', '.join(silent)} while preparing; {ready}.")


def _omit(attempt: Attempt, reasons: Mapping[TrustCode, ReasonCode]) -> list[Message]:
    """Leave these Trusts out; nothing where too few would remain."""
    if len(attempt.run.trusts.difference(reasons)) < attempt.needed:
        return []
    return [TrustOmitted(attempt_id=attempt.id, trust=trust, reason=reason) for trust, reason in reasons.items()]


def left_out(attempt: Attempt, trust: TrustCode) -> TrustLeftOut:
    """What others are told of a Trust that is left out."""
    run = attempt.run
    return TrustLeftOut(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        trust=trust,
        reason=attempt.left_out[trust],
    )


def lose_worker(attempt: Attempt, trust: TrustCode, said_at: datetime) -> list[Message]:
    """A Trust's worker began anew: what it trained is gone, what it prepared is not.

    One that began before it was ready for this attempt has lost nothing of it; the word of it came late. Both times are
    the Trust's own.
    """
    if attempt.status != "running" or trust not in attempt.run.trusts:
        return []
    ready_at = attempt.prepared[trust].said_at
    if ready_at is not None and said_at < ready_at:
        return []
    return close(attempt, "interrupted", "worker-restarted", f"The worker at {trust} began anew.")


def end_run(assigned: RunAssigned, *, forget: bool) -> EndRun:
    """What each Trust of the run is asked at the end."""
    return EndRun(
        run_id=assigned.run_id,
        project_id=assigned.project_id,
        attempt=assigned.attempt,
        net=assigned.net,
        forget=forget,
    )


def note_ended(attempt: Attempt, trust: TrustCode) -> list[Message]:
    """A Trust has nothing left of an attempt that is being ended; once."""
    if attempt.status not in {"closing", "over"} or trust not in attempt.run.trusts or trust in attempt.ended:
        return []
    return [TrustEnded(attempt_id=attempt.id, trust=trust)]


def finish(attempt: Attempt) -> list[Message]:
    """The outcome is told: what was collected has been told by its own event."""
    return [AttemptOver(attempt_id=attempt.id)] if attempt.status == "closing" else []


def told(attempt: Attempt) -> AttemptEnded | None:
    """How the attempt ended, for the scheduler; None where it ended with results."""
    closing, run = attempt.closing, attempt.run
    if closing is None or closing.outcome == "collected":
        return None
    return AttemptEnded(
        run_id=run.run_id,
        project_id=run.project_id,
        attempt=run.attempt,
        fencing=run.fencing,
        outcome=closing.outcome,
        reason=closing.reason,
        detail=closing.detail,
        differences=closing.differences,
    )


def settle(attempt: Attempt) -> list[Message]:
    """The net is clean again."""
    return [AttemptClosed(attempt_id=attempt.id)] if attempt.status == "over" and attempt.is_gone else []


def settle_without(attempt: Attempt) -> list[Message]:
    """The net goes on without the word of the Trusts that have not said that nothing of the attempt is left there.

    Each of them ends what is left of it before it prepares another run, whether or not it has heard that it is over.
    """
    if attempt.status != "over":
        return []
    return [AttemptClosed(attempt_id=attempt.id, unconfirmed=attempt.run.trusts - attempt.ended)]


def unconfirmed(attempt: Attempt, closed: AttemptClosed) -> EndUnconfirmed | None:
    """What others are told of the Trusts whose word is missing; None where none is."""
    run = attempt.run
    if not closed.unconfirmed:
        return None
    return EndUnconfirmed(run_id=run.run_id, project_id=run.project_id, attempt=run.attempt, trusts=closed.unconfirmed)


def evolve(attempt: Attempt, event: Message) -> Attempt:
    """The state after an event."""
    match event:
        case AttemptTaken(assigned=assigned):
            changed = Attempt("preparing", assigned)
        case TrustPrepared(trust=trust):
            changed = replace(attempt, prepared={**attempt.prepared, trust: event})
        case TrustOmitted(trust=trust, reason=reason):
            left_out = {**attempt.left_out, trust: reason}
            changed = replace(attempt, assigned=_without(attempt.run, trust), left_out=left_out)
        case JobSubmitted(job=job):
            changed = replace(attempt, status="running" if attempt.status == "preparing" else attempt.status, job=job)
        case AttemptClosing():
            changed = replace(attempt, status="closing", closing=event)
        case TrustEnded(trust=trust):
            changed = replace(attempt, ended=attempt.ended | {trust})
        case AttemptOver():
            changed = replace(attempt, status="over")
        case AttemptClosed():
            changed = replace(attempt, status="closed")
        case _:
            changed = attempt
    return changed


def _without(run: RunAssigned, trust: TrustCode) -> RunAssigned:
    weights = {each: weight for each, weight in run.aggregation_weights.items() if each != trust}
    return run.model_copy(update={"trusts": run.trusts - {trust}, "aggregation_weights": weights})


ATTEMPTS = Aggregate(ATTEMPT, Attempt(), evolve)


# --- the job ------------------------------------------------------------------------------------------------------


def dataset_name(dataset_id: int) -> str:
    """The one name under which every Trust has the run's data set."""
    return f"Dataset{dataset_id:03d}_FLIP"


def predicts(payload: Mapping[str, Any]) -> bool:
    """Whether a run with this payload predicts; otherwise it trains."""
    return payload["mode"] == "inference"


def is_app(payload: Mapping[str, Any]) -> bool:
    """Whether a run with this payload trains a researcher's own app; otherwise it is nnU-Net's."""
    return payload["mode"] == "app"


def dataset_of(payload: Mapping[str, Any]) -> str:
    """The name of the data set that a run with this payload has at each Trust."""
    if predicts(payload):
        [dataset] = payload["dataset_subdirs"]
        return dataset_name(int(dataset))
    return dataset_name(payload["dataset_id"])


def cohort_digest(project_id: ProjectId, members: Iterable[tuple[int, str | None]]) -> Sha256:
    """SHA-256 over the project and the members of its cohort, person and accession each, whatever their order.

    The project is in it, so that the same cohort in another project can't be recognised by its digest.
    """
    lines = sorted(f"{person}\x1f{accession or ''}\n" for person, accession in members)
    return hashlib.sha256("".join([f"{project_id}\n", *lines]).encode()).hexdigest()


def results_name(assigned: RunAssigned) -> str:
    """A file name that says what the results are."""
    payload = assigned.payload
    if is_app(payload):
        return f"{assigned.framework}-app_{assigned.run_id}.zip"
    if predicts(payload):
        done = "predictions"
    else:
        done = f"{payload['model_configuration']}_fold-{payload['fold_id']}_{payload['num_rounds']}-rounds"
    return f"{dataset_of(payload)}_{done}_{assigned.run_id}.zip"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a net says of its jobs: nnU-Net's compute profile, and how long it waits for a silent Trust."""

    profile: Mapping[str, Any]
    patience: Mapping[str, float]


def job_record(assigned: RunAssigned, terms: Terms, cohorts: Mapping[TrustCode, Sha256]) -> dict[str, Any]:
    """What is trained or predicted, as `flip_nnunet.job.read_job` or, of an app, `flip_apps.job.AppJob` reads it."""
    common = {"run_id": str(assigned.run_id), "cohorts": dict(cohorts), "patience": dict(terms.patience)}
    if is_app(assigned.payload):
        return common | _app(assigned)
    common["profile"] = dict(terms.profile)
    return common | ({"payload": assigned.payload} if predicts(assigned.payload) else _training(assigned))


def _app(assigned: RunAssigned) -> dict[str, Any]:
    return {
        "kind": "app",
        "framework": assigned.framework,
        "project_id": str(assigned.project_id),
        "query": assigned.query_digest,
        "files": dict(assigned.files),
        "local_rounds": assigned.payload["local_rounds"],
        "starting_round": assigned.checkpoint.round + 1 if assigned.checkpoint else 0,
        **_of_every_training(assigned),
    }


def _training(assigned: RunAssigned) -> dict[str, Any]:
    """A resumed run starts after its last completed round."""
    start = assigned.checkpoint.round + 1 if assigned.checkpoint else assigned.payload["starting_fed_round"]
    return {
        "dataset_name": dataset_of(assigned.payload),
        "payload": {**assigned.payload, "starting_fed_round": start},
        "aggregation_weights": dict(assigned.aggregation_weights),
        **_of_every_training(assigned),
    }


def _of_every_training(assigned: RunAssigned) -> dict[str, Any]:
    """The seed is the run's own: every attempt of a run draws the same numbers."""
    minimum = {} if assigned.minimum_trusts is None else {"minimum_sites": assigned.minimum_trusts}
    return {"seed": assigned.run_id.int % 2**31, **minimum}


def weights_to_go_on_from(checkpoint: Checkpoint) -> list[Checkpoint | BestRound]:
    """What an attempt needs that goes on from a checkpoint: its weights, and the best ones where they are others."""
    best = checkpoint.best
    return [checkpoint] if best is None or best.round == checkpoint.round else [checkpoint, best]


def object_of_round(assigned: RunAssigned, round_: int) -> str:
    """Where a round's weights are kept. Each attempt has its own: one that was fenced off overwrites nothing."""
    return f"runs/{assigned.run_id}/rounds/{round_}.{assigned.attempt}.npz"


def object_of_results(run_id: RunId, digest: Sha256) -> str:
    """Where a run's results are kept, before and after `files` has scanned them."""
    return f"runs/{run_id}/results/{digest}.zip"
