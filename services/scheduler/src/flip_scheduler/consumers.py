"""What the scheduler hears, and what it keeps of what it says."""

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler, projection, reaction
from flip_chassis.work import Work
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import CohortFrozen
from flip_contracts.files import (
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    ResultsPublished,
    ResultsRefused,
    RoundsDeleted,
)
from flip_contracts.imaging import DatasetWithdrawn, ImagesDeleted, ImagingReady, LabelsRegistered
from flip_contracts.projects import ApprovalWithdrawn, EnrichmentConfirmed, ModelCreated, ModelDeleted, ProjectDeleted
from flip_contracts.scheduler import (
    NetDraining,
    NetLost,
    NetRetired,
    NetUndrained,
    ProjectWeighted,
    RunAssigned,
    RunFailed,
    RunFinished,
    RunPrioritised,
    RunQueued,
    RunRequeued,
    RunStopped,
    RunStopping,
)
from flip_contracts.trainer_node import (
    AttemptEnded,
    ContributionExcluded,
    EndUnconfirmed,
    MetricReported,
    NetFree,
    NetHeartbeat,
    PlanAgreed,
    ResultIgnored,
    ResultsCollected,
    RoundComplete,
    RunPrepared,
    StageReached,
    TrainingStarted,
    TrustLeftOut,
)

from flip_scheduler import store
from flip_scheduler.dispatch import Dispatcher

# --- what training needs ------------------------------------------------------------------------------------------


@projection
async def learn_model(event: ModelCreated, db: Connection) -> None:
    await store.keep_model(db, event)


@projection
async def forget_model(event: ModelDeleted, db: Connection) -> None:
    await store.drop_model(db, event.model_id)


@projection
async def learn_enrichment(event: EnrichmentConfirmed, db: Connection) -> None:
    await store.confirm_enrichment(db, event.project_id)


@projection
async def learn_images(event: ImagingReady, db: Connection) -> None:
    await store.keep_images(db, event.project_id, event.trust, ready=True)


@projection
async def learn_loss_of_images(event: ImagesDeleted, db: Connection) -> None:
    await store.keep_images(db, event.project_id, event.trust, ready=False)


@projection
async def learn_withdrawal_of_dataset(event: DatasetWithdrawn, db: Connection) -> None:
    await store.keep_images(db, event.project_id, event.trust, ready=False)


@projection
async def learn_labels(event: LabelsRegistered, db: Connection) -> None:
    await store.keep_labels(db, event)


@projection
async def learn_frozen(event: CohortFrozen, db: Connection) -> None:
    await store.keep_query(db, event)


@projection
async def learn_upload(event: ModelFileUploaded, db: Connection) -> None:
    await store.keep_upload(db, event)


@projection
async def learn_accepted(event: ModelFileAccepted, db: Connection) -> None:
    await store.accept_file(db, event)


@projection
async def learn_refused(event: ModelFileRefused, db: Connection) -> None:
    await store.refuse_file(db, event)


@projection
async def learn_removed(event: ModelFileRemoved, db: Connection) -> None:
    await store.drop_file(db, event)


# --- the run, as the scheduler itself says it ---------------------------------------------------------------------


@projection
async def show_queued(event: RunQueued, db: Connection, said: Envelope) -> None:
    await store.keep_run(db, event, said)
    begins = event.continues
    facts = {} if begins is None else {"continues": str(begins.run_id), "first_round": begins.checkpoint.round + 1}
    await store.add_news(db, event, said, "queued", facts)


@projection
async def show_assigned(event: RunAssigned, db: Connection, said: Envelope) -> None:
    await store.assign_run(db, event, said)
    resumes = event.checkpoint.round + 1 if event.checkpoint else None
    facts = {"net": event.net, "trusts": sorted(event.trusts), "resumes_at_round": resumes}
    await store.add_news(db, event, said, "assigned", facts)


@projection
async def show_priority(event: RunPrioritised, db: Connection, said: Envelope) -> None:
    await store.set_priority(db, event.run_id, event.priority)
    await store.add_news(db, event, said, "prioritised", {"priority": event.priority, "reason": event.reason})


@projection
async def show_requeued(event: RunRequeued, db: Connection, said: Envelope) -> None:
    await store.requeue(db, event)
    rests = {} if event.rests_until is None else {"rests_until": event.rests_until.isoformat()}
    await store.add_news(db, event, said, "requeued", {"reason": event.reason, **rests})


@projection
async def show_net_lost(event: NetLost, db: Connection, said: Envelope) -> None:
    await store.add_news(db, event, said, "net-lost", {"net": event.net})


@projection
async def show_stopping(event: RunStopping, db: Connection, said: Envelope) -> None:
    await store.set_status(db, event.run_id, "stopping")
    await store.add_news(db, event, said, "stopping", {})


@projection
async def show_stopped(event: RunStopped, db: Connection, said: Envelope) -> None:
    await store.end_run(db, event.run_id, "stopped", said)
    await store.add_news(db, event, said, "stopped", {})


@projection
async def show_finished(event: RunFinished, db: Connection, said: Envelope) -> None:
    await store.end_run(db, event.run_id, "finished", said, results=event.results)
    await store.add_news(db, event, said, "finished", {"results": event.results})


@projection
async def show_failed(event: RunFailed, db: Connection, said: Envelope) -> None:
    await store.end_run(db, event.run_id, "failed", said, reason=event.reason, detail=event.detail)
    await store.add_news(db, event, said, "failed", {"reason": event.reason, "detail": event.detail})


# --- what an admin decided of projects and nets -------------------------------------------------------------------


@projection
async def keep_weight(event: ProjectWeighted, db: Connection) -> None:
    await store.set_weight(db, event.project_id, event.weight)


@projection
async def keep_drain(event: NetDraining, db: Connection, said: Envelope) -> None:
    await store.drain_net(db, event, said)


@projection
async def end_drain(event: NetUndrained, db: Connection) -> None:
    await store.undrain_net(db, event.net)


@projection
async def end_drain_of_retired_net(event: NetRetired, db: Connection) -> None:
    await store.undrain_net(db, event.net)


# --- the run, as its net tells of it: news of an attempt that is not the present one is not kept --------------------


@projection
async def show_prepared(event: RunPrepared, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.add_news(
        db, event, said, "prepared", {"trust": event.trust, "cases": event.cases}, attempt=event.attempt
    )


@projection
async def show_left_out(event: TrustLeftOut, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.leave_out(db, event.run_id, event.attempt, event.trust)
    facts = {"trust": event.trust, "reason": event.reason}
    await store.add_news(db, event, said, "left-out", facts, attempt=event.attempt)


@projection
async def show_stage(event: StageReached, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.reach_stage(db, event.run_id, event.attempt, event.stage)
    await store.add_news(db, event, said, "stage", {"stage": event.stage}, attempt=event.attempt)


@projection
async def show_plan(event: PlanAgreed, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    facts = {"plan_digest": event.plan_digest, "by_trust": event.by_trust}
    await store.add_news(db, event, said, "plan", facts, attempt=event.attempt)


@projection
async def show_training(event: TrainingStarted, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.expect_rounds(db, event.run_id, event.attempt, event.rounds)
    facts = {"first_round": event.first_round, "rounds": event.rounds}
    await store.add_news(db, event, said, "training", facts, attempt=event.attempt)


@projection
async def show_round(event: RoundComplete, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    if await store.keep_round(db, event):
        facts = {"round": event.checkpoint.round, "rounds": event.rounds, "digest": event.checkpoint.digest}
        await store.add_news(db, event, said, "round", facts)


@projection
async def show_metric(event: MetricReported, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.keep_metric(db, event, said)
    facts = event.model_dump(include={"trust", "round", "name", "value", "x", "axis"}, exclude_none=True)
    await store.add_news(db, event, said, "metric", facts, attempt=event.attempt)


@projection
async def show_excluded(event: ContributionExcluded, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    facts = {"trust": event.trust, "round": event.round, "reason": event.reason}
    await store.add_news(db, event, said, "contribution-excluded", facts, attempt=event.attempt)


@projection
async def show_ignored(event: ResultIgnored, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    facts = {"trust": event.trust, "operation": event.operation, "reason": event.reason}
    await store.add_news(db, event, said, "result-ignored", facts, attempt=event.attempt)


@projection
async def show_collected(event: ResultsCollected, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    facts = {"name": event.name, "size_bytes": event.size_bytes, "seal": event.seal}
    await store.add_news(db, event, said, "collected", facts, attempt=event.attempt)


@projection
async def show_end_of_attempt(event: AttemptEnded, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    facts = event.model_dump(include={"outcome", "reason", "detail", "differences"})
    await store.add_news(db, event, said, "attempt-ended", facts, attempt=event.attempt)


@projection
async def show_unconfirmed_end(event: EndUnconfirmed, db: Connection, said: Envelope) -> None:
    """Also where another attempt is under way by now: that one may wait for the very Trusts."""
    await store.lock_queue(db)
    facts = {"trusts": sorted(event.trusts), "of_attempt": event.attempt}
    await store.add_news(db, event, said, "end-unconfirmed", facts)


# --- what is left of the run ------------------------------------------------------------------------------------


@projection
async def show_deleted_rounds(event: RoundsDeleted, db: Connection, said: Envelope) -> None:
    await store.lock_queue(db)
    await store.drop_rounds(db, event)
    await store.add_news(db, event, said, "rounds-deleted", {"kept": event.kept})


# --- what is decided ----------------------------------------------------------------------------------------------


def decisions(dispatcher: Dispatcher) -> tuple[Handler, ...]:
    """The reactions, each a decision of the dispatcher."""

    async def stop_runs_of_deleted_project(event: ProjectDeleted, work: Work) -> None:
        await dispatcher.stop_all(work, project_id=event.project_id)

    async def stop_runs_of_deleted_model(event: ModelDeleted, work: Work) -> None:
        await dispatcher.stop_all(work, model_id=event.model_id)

    async def stop_runs_that_lost_a_trust(event: ApprovalWithdrawn, work: Work) -> None:
        await dispatcher.stop_all(work, project_id=event.project_id, trust=event.trust)

    async def take_free_net(event: NetFree, work: Work) -> None:
        await dispatcher.hear_free_net(work, event)

    async def take_heartbeat(event: NetHeartbeat, work: Work) -> None:
        await dispatcher.hear_heartbeat(work, event)

    async def take_end_of_attempt(event: AttemptEnded, work: Work) -> None:
        await dispatcher.hear_end_of_attempt(work, event)

    async def take_collected_results(event: ResultsCollected, work: Work) -> None:
        await dispatcher.hear_results_collected(work, event)

    async def take_published_results(event: ResultsPublished, work: Work) -> None:
        await dispatcher.hear_results(work, event)

    async def take_refused_results(event: ResultsRefused, work: Work) -> None:
        await dispatcher.hear_results(work, event)

    return tuple(
        map(
            reaction,
            (
                stop_runs_of_deleted_project,
                stop_runs_of_deleted_model,
                stop_runs_that_lost_a_trust,
                take_free_net,
                take_heartbeat,
                take_end_of_attempt,
                take_collected_results,
                take_published_results,
                take_refused_results,
            ),
        )
    )


projections = (
    *user_handlers,
    *project_handlers,
    learn_model,
    forget_model,
    learn_enrichment,
    learn_images,
    learn_withdrawal_of_dataset,
    learn_loss_of_images,
    learn_labels,
    learn_frozen,
    learn_upload,
    learn_accepted,
    learn_refused,
    learn_removed,
    show_queued,
    show_assigned,
    show_priority,
    keep_weight,
    keep_drain,
    end_drain,
    end_drain_of_retired_net,
    show_requeued,
    show_net_lost,
    show_stopping,
    show_stopped,
    show_finished,
    show_failed,
    show_prepared,
    show_left_out,
    show_stage,
    show_plan,
    show_training,
    show_round,
    show_metric,
    show_excluded,
    show_ignored,
    show_collected,
    show_end_of_attempt,
    show_unconfirmed_end,
    show_deleted_rounds,
)


def handlers(dispatcher: Dispatcher) -> tuple[Handler, ...]:
    """Everything the scheduler hears. Projections come first: a decision sees what they keep."""
    return (*projections, *decisions(dispatcher))
