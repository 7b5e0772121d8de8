from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any
from uuid import UUID

import pytest
from flip_contracts.base import Message, ModelId, ProjectId, RunId
from flip_contracts.scheduler import Checkpoint, Continued, RunAssigned
from flip_contracts.trainer_node import TrustPreparedRun
from flip_trainer_node import domain
from flip_trainer_node.attempts import (
    AttemptClosed,
    AttemptClosing,
    AttemptOver,
    JobSubmitted,
    TrustEnded,
    TrustOmitted,
)
from flip_trainer_node.domain import Attempt
from hypothesis import given
from hypothesis import strategies as st

TRUSTS = ("KCH", "UCLH")
DIGEST = "e" * 64
PAYLOAD: dict[str, Any] = {
    "mode": "training",
    "dataset_id": 7,
    "model_configuration": "2d",
    "fold_id": 0,
    "num_rounds": 9,
    "starting_fed_round": 0,
}
TERMS = domain.Terms(profile={"name": "full"}, patience={"factor": 3})
RUN = RunAssigned(
    run_id=RunId(UUID(int=1)),
    project_id=ProjectId(UUID(int=2)),
    model_id=ModelId(UUID(int=3)),
    net="net1",
    attempt=2,
    fencing=7,
    framework="nvflare",
    job="nnunet",
    trusts=frozenset(TRUSTS),
    payload=PAYLOAD,
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
READY = TrustPreparedRun(run_id=RUN.run_id, project_id=RUN.project_id, attempt=2, cases=12, dataset_digest=DIGEST)

MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("prepared", "submit", "close", "ended", "finish", "settle", "settle-without"),
                *("refuse", "omit-silent", "lose"),
            ]
        ),
        st.sampled_from([*TRUSTS, "GSTT"]),
    ),
    max_size=40,
)


def moved(attempt: Attempt, move: str, trust: str) -> list[Message]:
    match move:
        case "prepared":
            events = domain.note_prepared(attempt, trust, READY, NOON)
        case "submit":
            events = domain.submit(attempt, "job", {}) if attempt.is_prepared else []
        case "close":
            events = domain.close(attempt, "interrupted", "net-lost")
        case "ended":
            events = domain.note_ended(attempt, trust)
        case "finish":
            events = domain.finish(attempt)
        case "refuse":
            events = domain.refuse(attempt, trust, "too-few-cases")
        case "omit-silent":
            events = domain.omit_silent(attempt)
        case "settle-without":
            events = domain.settle_without(attempt)
        case "lose":
            events = domain.lose_worker(attempt, trust, NOON)
        case _:
            events = domain.settle(attempt)
    return events


@given(MOVES, st.sampled_from([None, 1, 2]))
@pytest.mark.requirement("RUN-3")
@pytest.mark.requirement("RUN-4")
def test_an_attempt_ends_once_and_is_closed_only_when_every_trust_has_ended_it_or_is_named(
    moves: list[tuple[str, str]], minimum: int | None
) -> None:
    history = domain.take(Attempt(), RUN.model_copy(update={"minimum_trusts": minimum}))
    attempt = reduce(domain.evolve, history, Attempt())
    for move, trust in moves:
        events = moved(attempt, move, trust)
        history += events
        attempt = reduce(domain.evolve, events, attempt)
    kinds = [type(event) for event in history]
    for once in (JobSubmitted, AttemptClosing, AttemptOver, AttemptClosed):
        assert kinds.count(once) <= 1
    if JobSubmitted in kinds and AttemptClosing in kinds:
        assert kinds.index(JobSubmitted) < kinds.index(AttemptClosing)
    if AttemptClosed in kinds:
        ended = {event.trust for event in history if isinstance(event, TrustEnded)}
        closed = history[-1]
        assert isinstance(closed, AttemptClosed)
        assert attempt.run.trusts - ended == closed.unconfirmed
    if TrustOmitted in kinds and JobSubmitted in kinds:
        assert kinds.index(TrustOmitted) < kinds.index(JobSubmitted)
    assert len(attempt.run.trusts) >= (minimum or len(TRUSTS))
    assert attempt.asked == set(TRUSTS)
    assert set(attempt.prepared) <= attempt.run.trusts
    assert "GSTT" not in {*attempt.prepared, *attempt.ended}


def test_an_assignment_that_is_heard_twice_is_taken_once() -> None:
    [taken] = domain.take(Attempt(), RUN)
    assert domain.take(domain.evolve(Attempt(), taken), RUN) == []


def test_a_job_that_was_handed_over_while_the_attempt_was_ended_is_known_and_can_be_ended() -> None:
    attempt = reduce(domain.evolve, domain.take(Attempt(), RUN), Attempt())
    attempt = reduce(domain.evolve, domain.close(attempt, "stopped", "stopped"), attempt)
    attempt = reduce(domain.evolve, domain.submit(attempt, "job", {}), attempt)
    assert (attempt.status, attempt.job) == ("closing", "job")


def after(attempt: Attempt, *moves: list[Message]) -> Attempt:
    return reduce(domain.evolve, [event for events in moves for event in events], attempt)


def preparing(**changes: object) -> Attempt:
    return after(Attempt(), domain.take(Attempt(), RUN.model_copy(update=changes)))


@pytest.mark.requirement("RUN-4")
def test_a_run_goes_on_without_a_trust_that_it_does_not_need_and_its_job_names_the_others_only() -> None:
    attempt = preparing(minimum_trusts=1, aggregation_weights={"KCH": 0.5, "UCLH": 2.0})
    attempt = after(attempt, domain.note_prepared(attempt, "KCH", READY, NOON))
    assert not attempt.is_prepared
    attempt = after(attempt, domain.refuse(attempt, "UCLH", "disk-full"))
    assert attempt.is_prepared
    assert (attempt.run.trusts, attempt.left_out) == ({"KCH"}, {"UCLH": "disk-full"})
    assert domain.job_record(attempt.run, TERMS, attempt.cohorts)["aggregation_weights"] == {"KCH": 0.5}
    assert domain.note_prepared(attempt, "UCLH", READY, NOON) == []
    assert domain.refuse(attempt, "UCLH", "disk-full") == []


@pytest.mark.requirement("RUN-4")
def test_a_run_that_needs_the_trust_fails_with_the_reason_of_each_that_can_not_take_part() -> None:
    attempt = preparing(minimum_trusts=1)
    attempt = after(attempt, domain.refuse(attempt, "UCLH", "disk-full"))
    [closing] = domain.refuse(attempt, "KCH", "too-few-cases")
    assert isinstance(closing, AttemptClosing)
    assert (closing.outcome, closing.reason) == ("failed", "too-few-cases")
    assert closing.detail == "KCH can't take part: too-few-cases. UCLH can't take part: disk-full."


@pytest.mark.requirement("RUN-9")
def test_a_run_is_tried_again_where_what_is_wrong_at_a_trust_may_pass() -> None:
    [closing] = domain.refuse(preparing(), "UCLH", "cohort-unreachable")
    assert isinstance(closing, AttemptClosing)
    assert (closing.outcome, closing.reason) == ("interrupted", "cohort-unreachable")
    one_is_away = preparing(minimum_trusts=1)
    one_is_away = after(one_is_away, domain.refuse(one_is_away, "UCLH", "cohort-unreachable"))
    [closing] = domain.refuse(one_is_away, "KCH", "disk-full")
    assert isinstance(closing, AttemptClosing)
    assert (closing.outcome, closing.reason) == ("interrupted", "disk-full")


@pytest.mark.requirement("RUN-9")
def test_a_resumed_run_needs_each_trust_that_its_plan_was_made_from() -> None:
    attempt = preparing(minimum_trusts=1, checkpoint=Checkpoint(round=4, object="o", digest=DIGEST))
    attempt = after(attempt, domain.note_prepared(attempt, "KCH", READY, NOON))
    [closing] = domain.omit_silent(attempt)
    assert isinstance(closing, AttemptClosing)
    assert (closing.outcome, closing.reason) == ("interrupted", "trusts-silent")
    assert closing.detail == "No word of UCLH while preparing; 1 of the 2 Trusts that the run needs are ready."


@pytest.mark.requirement("RUN-9")
def test_a_run_that_continues_another_starts_without_a_silent_trust_where_it_may_as_its_plan_is_yet_to_be_made() -> (
    None
):
    checkpoint = Checkpoint(round=4, object="o", digest=DIGEST)
    continues = Continued(run_id=RunId(UUID(int=9)), checkpoint=checkpoint)
    attempt = preparing(minimum_trusts=1, checkpoint=checkpoint, continues=continues)
    attempt = after(attempt, domain.note_prepared(attempt, "KCH", READY, NOON))
    assert [type(event) for event in domain.omit_silent(attempt)] == [TrustOmitted]


def test_a_trust_that_is_ready_and_one_that_spoke_in_time_are_not_left_out() -> None:
    attempt = preparing(minimum_trusts=1)
    attempt = after(attempt, domain.note_prepared(attempt, "KCH", READY, NOON))
    assert domain.refuse(attempt, "KCH", "disk-full") == []
    attempt = after(attempt, domain.note_prepared(attempt, "UCLH", READY, NOON))
    assert domain.omit_silent(attempt) == []


@pytest.mark.requirement("RUN-3")
def test_a_net_that_goes_on_without_a_trusts_word_says_which_trust_s() -> None:
    attempt = preparing()
    attempt = after(attempt, domain.close(attempt, "stopped", "stopped"))
    attempt = after(attempt, domain.note_ended(attempt, "KCH"))
    assert domain.settle_without(attempt) == [], "its outcome is told first"
    attempt = after(attempt, domain.finish(attempt))
    assert domain.settle(attempt) == []
    [closed] = domain.settle_without(attempt)
    assert isinstance(closed, AttemptClosed)
    missing = domain.unconfirmed(attempt, closed)
    assert missing is not None
    assert (missing.run_id, missing.attempt, missing.trusts) == (RUN.run_id, RUN.attempt, {"UCLH"})
    assert domain.note_ended(after(attempt, [closed]), "UCLH") == []


@pytest.mark.requirement("NNU-9")
def test_a_resumed_run_starts_after_its_last_round_with_the_same_seed() -> None:
    resumed = RUN.model_copy(update={"checkpoint": Checkpoint(round=4, object="o", digest=DIGEST), "attempt": 3})
    first, second = domain.job_record(RUN, TERMS, {}), domain.job_record(resumed, TERMS, {})
    assert first["payload"]["starting_fed_round"] == 0
    assert second["payload"]["starting_fed_round"] == 5
    assert first["seed"] == second["seed"]
    assert domain.object_of_round(RUN, 4) != domain.object_of_round(resumed, 4)


@pytest.mark.requirement("NNU-9")
def test_a_run_that_broke_after_its_last_round_resumes_behind_it() -> None:
    checkpoint = Checkpoint(round=PAYLOAD["num_rounds"] - 1, object="o", digest=DIGEST)
    payload = domain.job_record(RUN.model_copy(update={"checkpoint": checkpoint}), TERMS, {})["payload"]
    assert payload["starting_fed_round"] == payload["num_rounds"] == PAYLOAD["num_rounds"]


@pytest.mark.requirement("RUN-4")
def test_a_round_needs_every_trust_unless_the_run_was_queued_with_a_smaller_minimum() -> None:
    assert "minimum_sites" not in domain.job_record(RUN, TERMS, {})
    fewer = RUN.model_copy(update={"minimum_trusts": 1})
    assert domain.job_record(fewer, TERMS, {})["minimum_sites"] == 1


@pytest.mark.requirement("FILE-4")
def test_a_trust_counts_for_what_the_run_was_queued_with() -> None:
    assert domain.job_record(RUN, TERMS, {})["aggregation_weights"] == {}
    weighted = RUN.model_copy(update={"aggregation_weights": {"KCH": 0.5}})
    assert domain.job_record(weighted, TERMS, {})["aggregation_weights"] == {"KCH": 0.5}


@pytest.mark.requirement("RUN-7")
def test_results_have_a_name_that_says_what_they_are() -> None:
    assert domain.results_name(RUN) == f"Dataset007_FLIP_2d_fold-0_9-rounds_{RUN.run_id}.zip"


PREDICTION = RUN.model_copy(
    update={"payload": {"mode": "inference", "checkpoint_path": "m", "dataset_subdirs": {"31": "imagesTs"}}}
)


@pytest.mark.requirement("NNU-8")
def test_a_prediction_is_handed_over_as_it_was_asked_for() -> None:
    record = domain.job_record(PREDICTION, TERMS, {"KCH": DIGEST})
    assert record == {
        "run_id": str(PREDICTION.run_id),
        "payload": PREDICTION.payload,
        "cohorts": {"KCH": DIGEST},
        "profile": TERMS.profile,
        "patience": TERMS.patience,
    }
    assert domain.dataset_of(PREDICTION.payload) == "Dataset031_FLIP"
    assert domain.results_name(PREDICTION) == f"Dataset031_FLIP_predictions_{PREDICTION.run_id}.zip"


@pytest.mark.requirement("RUN-3")
@pytest.mark.parametrize(("said_at", "outcome"), [(NOON - timedelta(seconds=1), "running"), (NOON, "closing")])
def test_a_worker_that_began_before_it_was_ready_for_the_attempt_has_lost_nothing_of_it(
    said_at: datetime, outcome: str
) -> None:
    attempt = reduce(domain.evolve, domain.take(Attempt(), RUN), Attempt())
    for trust in TRUSTS:
        attempt = reduce(domain.evolve, domain.note_prepared(attempt, trust, READY, NOON), attempt)
    attempt = reduce(domain.evolve, domain.submit(attempt, "job", {}), attempt)
    assert reduce(domain.evolve, domain.lose_worker(attempt, "KCH", said_at), attempt).status == outcome


@pytest.mark.requirement("FILE-6")
def test_the_job_says_which_cohort_each_trust_prepared() -> None:
    attempt = reduce(domain.evolve, domain.take(Attempt(), RUN), Attempt())
    frozen = READY.model_copy(update={"cohort_digest": "c" * 64})
    for trust, report in (("KCH", frozen), ("UCLH", READY)):
        attempt = reduce(domain.evolve, domain.note_prepared(attempt, trust, report, NOON), attempt)
    assert attempt.cohorts == {"KCH": "c" * 64}
    assert domain.job_record(RUN, TERMS, attempt.cohorts)["cohorts"] == {"KCH": "c" * 64}


@pytest.mark.requirement("FILE-6")
def test_a_cohort_s_digest_tells_members_and_projects_apart_but_not_their_order() -> None:
    members = [(1, "A1"), (2, None), (1, "A2")]
    digest = domain.cohort_digest(RUN.project_id, members)
    assert digest == domain.cohort_digest(RUN.project_id, reversed(members))
    others = [members[:2], [*members, (3, None)], [(1, "A1"), (2, "A2"), (1, None)]]
    assert digest not in {domain.cohort_digest(RUN.project_id, other) for other in others}
    assert digest != domain.cohort_digest(ProjectId(UUID(int=9)), members)
