import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, get_args
from uuid import UUID

import pytest
from flip_chassis.refusal import Refused
from flip_chassis.testing import refused
from flip_contracts.base import Message, ModelId, ProjectId, RunId
from flip_contracts.projects import Framework
from flip_contracts.scheduler import (
    Checkpoint,
    EarlierResults,
    NetDraining,
    NetLost,
    NetRetired,
    NetUndrained,
    ProjectWeighted,
    Resources,
    RunAssigned,
    RunFailed,
    RunFinished,
    RunPrioritised,
    RunRequeued,
    RunStopped,
    RunStopping,
)
from flip_contracts.trainer_node import AttemptEnded
from flip_scheduler import domain
from flip_scheduler.domain import Again, Model, Place, Readiness, Request, Run
from flip_scheduler.fairness import Charge
from hypothesis import given
from hypothesis import strategies as st

RUN, PROJECT, MODEL = RunId(UUID(int=1)), ProjectId(UUID(int=2)), ModelId(UUID(int=3))
NNUNET = Model(MODEL, PROJECT, "nvflare", "nnunet")
PAYLOAD = {"mode": "training", "num_rounds": 20, "dataset_id": 7, "model_configuration": "2d", "device": "cpu"}
PREDICTION = {"mode": "inference", "checkpoint_path": f"run:{RUN}", "dataset_subdirs": {"7": "imagesTr"}}
EARLIER = EarlierResults(run_id=RUN, digest="b" * 64)
LABELS = {"striatum": 1, "thalamus": 2}
READY = Readiness(frozenset({"KCH", "UCLH"}), frozenset({"KCH", "UCLH"}), {"KCH": LABELS, "UCLH": LABELS}, True)
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
ROUND_3 = Checkpoint(round=3, object="runs/1/rounds/3.npz", digest="a" * 64)


def queued() -> Run:
    return domain.RUNS.after([domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD))])


def assigned(run: Run | None = None, fencing: int = 7, checkpoint: Checkpoint | None = None) -> Run:
    run = run or queued()
    return domain.evolve(run, domain.assign(run, place(fencing), checkpoint))


def place(fencing: int) -> Place:
    return Place("net1", fencing, READY.approved, Charge(0, 0))


def ended(run: Run, outcome: Any, **changes: Any) -> AttemptEnded:
    facts = {"attempt": run.attempt, "fencing": run.fencing, "reason": "site-gone"} | changes
    return AttemptEnded(run_id=RUN, project_id=PROJECT, outcome=outcome, **facts)


def again(most_tries: int, reached: Checkpoint | None = None) -> Again:
    return Again(NOON, reached, most_tries, timedelta(seconds=10))


@pytest.mark.requirement("RUN-1")
def test_training_starts_where_nothing_is_missing() -> None:
    event = domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD))
    assert event.trusts == {"KCH", "UCLH"}
    assert event.payload["fold_id"] == "all"


@pytest.mark.requirement("RUN-4")
def test_a_run_on_gpus_asks_for_one_at_each_trust_unless_it_asks_for_more() -> None:
    cuda = PAYLOAD | {"device": "cuda"}
    assert domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD)).resources == Resources()
    assert domain.initiate(RUN, NNUNET, READY, Request(cuda)).resources == Resources(gpus=1)
    asked = Resources(gpus=2, gpu_memory_mib=16384, memory_mib=65536)
    assert domain.initiate(RUN, NNUNET, READY, Request(cuda, resources=asked)).resources == asked
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request(cuda, resources=Resources(memory_mib=4096)))
    assert [each["field"] for each in caught.value.facts["missing"]] == ["resources.gpus"]


@pytest.mark.requirement("RUN-4")
@pytest.mark.parametrize("wrong", [0, -1, 3])
def test_no_more_trusts_can_be_asked_for_than_have_approved_and_no_fewer_than_one(wrong: int) -> None:
    assert domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD, minimum_trusts=1)).minimum_trusts == 1
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD, minimum_trusts=wrong))
    assert [each["field"] for each in caught.value.facts["missing"]] == ["minimum_trusts"]


@pytest.mark.requirement("FILE-4")
@pytest.mark.parametrize(
    ("weights", "minimum", "field"),
    [
        ({"GSTT": 1.0}, None, "aggregation_weights.GSTT"),
        ({"kch": 1.0}, None, "aggregation_weights.kch"),
        ({"KCH": -0.1}, None, "aggregation_weights.KCH"),
        ({"KCH": math.nan}, None, "aggregation_weights.KCH"),
        ({"KCH": math.inf}, None, "aggregation_weights.KCH"),
        ({"KCH": 1e308}, None, "aggregation_weights.KCH"),
        ({"KCH": 0.0009}, None, "aggregation_weights.KCH"),
        ({"KCH": 0.0, "UCLH": 0.0}, None, "aggregation_weights"),
        ({"KCH": 0.0}, 1, "aggregation_weights"),
    ],
)
def test_a_weight_that_cannot_count_is_refused_with_its_field(
    weights: dict[str, float], minimum: int | None, field: str
) -> None:
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD, minimum, aggregation_weights=weights))
    assert [each["field"] for each in caught.value.facts["missing"]] == [field]


@pytest.mark.requirement("FILE-4")
def test_weights_go_with_the_run_to_the_trusts_that_take_part() -> None:
    weights = {"KCH": 0.0, "UCLH": 2.5}
    queued = domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD, aggregation_weights=weights))
    assert queued.aggregation_weights == weights
    place = Place("net1", 1, frozenset({"UCLH"}), Charge(0, 1))
    assert domain.assign(Run("queued", queued), place, None).aggregation_weights == {"UCLH": 2.5}


@pytest.mark.requirement("RUN-2")
def test_nnunet_is_trained_on_either_framework() -> None:
    for framework in get_args(Framework):
        event = domain.initiate(RUN, Model(MODEL, PROJECT, framework, "nnunet"), READY, Request(PAYLOAD))
        assert event.framework == framework


@pytest.mark.requirement("RUN-1")
def test_everything_that_is_missing_is_named_at_once() -> None:
    ready = Readiness(
        frozenset({"GSTT", "KCH", "UCLH"}), frozenset({"KCH"}), {"KCH": LABELS, "UCLH": {"lesion": 1}}, False
    )
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, ready, Request(PAYLOAD | {"num_rounds": 0, "rounds": 3}))
    missing = caught.value.facts["missing"]
    assert [each["code"] for each in missing] == [
        "images-not-ready",
        "labels-missing",
        "labels-differ",
        "enrichment-not-confirmed",
        "payload-not-valid",
        "payload-not-valid",
    ]
    assert [each.get("trusts") for each in missing[:2]] == [["GSTT", "UCLH"], ["GSTT"]]
    assert [each["field"] for each in missing[4:]] == ["payload.num_rounds", "payload.rounds"]


def test_a_project_that_no_trust_approved_can_not_train() -> None:
    nobody = Readiness(frozenset(), frozenset(), {}, True)
    with refused(
        "run-not-ready", missing=[{"code": "project-not-approved", "detail": "No Trust has approved the project."}]
    ):
        domain.initiate(RUN, NNUNET, nobody, Request(PAYLOAD))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "tuning"}, "payload.mode"),
        ({"model_configuration": "3d_cascade_fullres"}, "payload.model_configuration"),
        ({"dataset_id": 1000}, "payload.dataset_id"),
        ({"trainer_name": "os.system"}, "payload.trainer_name"),
        ({"trainer_name": "nnUNetTrainerOfMine"}, "payload.trainer_name"),
        ({"fold_id": 5}, "payload.fold_id"),
        ({"starting_fed_round": 3}, "payload.starting_fed_round"),
        ({"learning_rate": 1}, "payload.learning_rate"),
    ],
)
@pytest.mark.requirement("NNU-6")
def test_a_wrong_field_of_the_payload_is_named(change: Mapping[str, Any], field: str) -> None:
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request({**PAYLOAD, **change}))
    assert {each["field"] for each in caught.value.facts["missing"]} == {field}


@pytest.mark.requirement("NNU-6")
def test_a_trainer_that_can_not_be_federated_is_refused_with_the_reason_and_an_odd_name_of_nnunet_is_taken() -> None:
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request({**PAYLOAD, "trainer_name": "nnUNetTrainerBenchmark_5epochs"}))
    [missing] = caught.value.facts["missing"]
    assert missing["field"] == "payload.trainer_name"
    assert "keeps no checkpoint" in missing["detail"]
    odd = {**PAYLOAD, "trainer_name": "nnUNet_Primus_M_Trainer"}
    assert domain.initiate(RUN, NNUNET, READY, Request(odd)).payload["trainer_name"] == "nnUNet_Primus_M_Trainer"


@pytest.mark.requirement("NNU-7")
def test_a_prediction_needs_images_but_no_labels() -> None:
    unlabelled = Readiness(READY.approved, READY.imported, {}, False)
    queued = domain.initiate(RUN, NNUNET, unlabelled, Request(PREDICTION, earlier=EARLIER))
    assert (queued.payload["checkpoint_name"], queued.earlier) == ("checkpoint_final.pth", EARLIER)
    assert domain.assign(Run("queued", queued), place(1), None).earlier == EARLIER
    assert queued.resources == Resources(gpus=1)
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, Readiness(READY.approved, frozenset(), {}, False), Request(PREDICTION))
    assert "images-not-ready" in {each["code"] for each in caught.value.facts["missing"]}


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize(
    ("change", "asked", "field"),
    [
        ({"checkpoint_path": f"run:{RUN}"}, {}, "payload.checkpoint_path"),
        ({"dataset_subdirs": {"7": "imagesTr", "8": "imagesTr"}}, {}, "payload.dataset_subdirs"),
        ({"dataset_subdirs": {"7": "../x"}}, {}, "payload.dataset_subdirs"),
        ({"num_rounds": 3}, {}, "payload.num_rounds"),
        ({}, {"aggregation_weights": {"KCH": 1.0}}, "aggregation_weights"),
        ({}, {"resources": Resources(memory_mib=1)}, "resources.gpus"),
    ],
)
def test_a_wrong_field_of_a_prediction_is_named(change: Mapping[str, Any], asked: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request({**PREDICTION, "checkpoint_path": "m", **change}, **asked))
    assert {each["field"] for each in caught.value.facts["missing"]} == {field}


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize("payload", [PAYLOAD, {}, PREDICTION | {"checkpoint_path": "m"}, PREDICTION | {"x": 1}])
def test_a_payload_names_an_earlier_run_only_where_it_does(payload: Mapping[str, Any]) -> None:
    assert domain.earlier_run(PREDICTION) == RUN
    assert domain.earlier_run(payload) is None


def test_an_attempt_that_was_interrupted_is_tried_again_from_the_last_round() -> None:
    run = assigned()
    events = domain.end_attempt(run, ended(run, "interrupted"), again(5))
    assert [type(event) for event in events] == [RunRequeued]
    second = assigned(domain.evolve(run, events[0]), fencing=8, checkpoint=ROUND_3)
    assert (second.attempt, second.fencing, second.checkpoint) == (2, 8, ROUND_3)


def test_a_run_that_gets_no_further_fails_with_the_reason() -> None:
    run = assigned()
    for fencing in (8, 9):
        run = assigned(domain.evolve(run, domain.end_attempt(run, ended(run, "interrupted"), again(3))[0]), fencing)
    [failed] = domain.end_attempt(run, ended(run, "interrupted"), again(3))
    assert isinstance(failed, RunFailed)
    assert failed.reason == "site-gone"
    assert failed.detail.startswith("3 attempts in a row")


def test_a_round_further_renews_the_number_of_tries() -> None:
    run = assigned()
    run = assigned(domain.evolve(run, domain.end_attempt(run, ended(run, "interrupted"), again(2))[0]), 8, ROUND_3)
    [event] = domain.end_attempt(run, ended(run, "interrupted"), again(2, reached=ROUND_3))
    assert isinstance(event, RunRequeued)


@pytest.mark.requirement("RUN-9")
def test_the_last_try_of_a_run_counts_for_none_where_it_brought_a_round() -> None:
    run = assigned()
    run = assigned(domain.evolve(run, domain.end_attempt(run, ended(run, "interrupted"), again(2))[0]), 8)
    [event] = domain.end_attempt(run, ended(run, "interrupted"), again(2, reached=ROUND_3))
    assert isinstance(event, RunRequeued)
    assert event.rests_until is None


@pytest.mark.requirement("RUN-9")
def test_a_run_that_gets_no_further_rests_longer_each_time_but_not_before_its_second_try() -> None:
    run, rests = assigned(), list[datetime | None]()
    for fencing in range(8, 12):
        [event] = domain.end_attempt(run, ended(run, "interrupted"), again(5))
        assert isinstance(event, RunRequeued)
        rests.append(event.rests_until)
        run = assigned(domain.evolve(run, event), fencing)
    assert rests == [None, *(NOON + timedelta(seconds=seconds) for seconds in (10, 20, 40))]


def test_an_attempt_that_is_wrong_in_itself_is_not_tried_again() -> None:
    run = assigned()
    [failed] = domain.end_attempt(run, ended(run, "failed", reason="plans-differ"), again(5))
    assert isinstance(failed, RunFailed)
    assert failed.reason == "plans-differ"


@pytest.mark.parametrize("change", [{"attempt": 0}, {"fencing": 6}])
@pytest.mark.requirement("RUN-3")
def test_the_end_of_an_older_attempt_changes_nothing(change: Mapping[str, int]) -> None:
    run = assigned()
    assert domain.end_attempt(run, ended(run, "failed", **change), again(5)) == []


@pytest.mark.requirement("RUN-3")
def test_a_lost_net_gives_its_run_back_to_the_queue() -> None:
    run = assigned()
    lost, requeued = domain.lose_net(run, run.fencing, again(5))
    assert isinstance(lost, NetLost)
    assert isinstance(requeued, RunRequeued)
    assert domain.lose_net(run, run.fencing - 1, again(5)) == []


def test_a_waiting_run_stops_at_once() -> None:
    assert isinstance(domain.stop(queued(), held=False), RunStopped)


@pytest.mark.requirement("RUN-6")
def test_a_running_run_stops_when_its_net_has_ended_it() -> None:
    run = assigned()
    stopping = domain.stop(run, held=True)
    assert isinstance(stopping, RunStopping)
    run = domain.evolve(run, stopping)
    with refused("run-can-not-be-stopped", status="stopping"):
        domain.stop(run, held=True)
    for outcome in ("stopped", "interrupted", "failed"):
        [event] = domain.end_attempt(run, ended(run, outcome), again(5))
        assert isinstance(event, RunStopped)
    assert [type(event) for event in domain.release(run, run.fencing)] == [RunStopped]
    assert [type(event) for event in domain.lose_net(run, run.fencing, again(5))] == [NetLost, RunStopped]


@pytest.mark.requirement("RUN-6")
def test_an_ended_run_can_not_be_stopped() -> None:
    run = assigned()
    run = domain.evolve(run, domain.finish(run, "b" * 64)[0])
    with refused("run-can-not-be-stopped", status="finished"):
        domain.stop(run, held=False)


def test_results_of_a_stopped_run_do_not_finish_it() -> None:
    run = domain.evolve(queued(), domain.stop(queued(), held=False))
    assert domain.finish(run, "b" * 64) == []
    assert domain.fail(run, "results-refused") == []


# --- the machine as a whole ---------------------------------------------------------------------------------------

MOVES = st.lists(
    st.sampled_from(["assign", "interrupted", "failed", "stopped", "stop", "lose", "release", "publish", "stale"]),
    max_size=30,
)


def moved(run: Run, move: str, fencing: int) -> list[Message]:
    events: list[Message] = []
    match move:
        case "assign" if run.status == "queued":
            events = [domain.assign(run, place(fencing), None)]
        case "stop" if run.status in {"queued", "assigned"}:
            events = [domain.stop(run, held=run.is_held)]
        case "interrupted" | "failed" | "stopped":
            events = domain.end_attempt(run, ended(run, move), again(3))
        case "stale":
            events = domain.end_attempt(run, ended(run, "failed", attempt=run.attempt - 1), again(3))
        case "lose":
            events = domain.lose_net(run, run.fencing, again(3))
        case "release":
            events = domain.release(run, run.fencing)
        case "publish" if run.is_held:
            events = domain.finish(run, "b" * 64)
        case _:
            pass
    return events


@given(MOVES)
@pytest.mark.requirement("RUN-3")
def test_a_run_is_always_waiting_or_held_or_ended_and_an_end_is_final(moves: list[str]) -> None:
    run = queued()
    history: list[Message] = []
    for fencing, move in enumerate(moves, start=1):
        events = moved(run, move, fencing)
        assert not (events and (run.status in domain.ENDED or move == "stale"))
        history += events
        run = reduce(domain.evolve, events, run)
        assert (run.net is not None) == run.is_held
    fencings = [event.fencing for event in history if isinstance(event, RunAssigned)]
    assert fencings == sorted(set(fencings))
    endings = [event for event in history if isinstance(event, RunStopped | RunFinished | RunFailed)]
    assert len(endings) == (run.status in domain.ENDED)


# --- what an admin decides ----------------------------------------------------------------------------------------


@pytest.mark.requirement("RUN-4")
def test_a_run_has_the_priority_that_was_given_last_until_it_has_ended() -> None:
    run = queued()
    [event] = domain.prioritise(run, 9, "the ward waits")
    assert isinstance(event, RunPrioritised)
    run = assigned(domain.evolve(run, event))
    assert run.priority == 9
    assert domain.prioritise(run, 9, "again") == []
    ended_run = domain.evolve(run, domain.finish(run, "b" * 64)[0])
    with refused("run-has-ended", status="finished"):
        domain.prioritise(ended_run, 0, "too late")


@pytest.mark.requirement("RUN-4")
def test_a_decision_that_changes_nothing_is_not_said() -> None:
    said = domain.weigh(domain.WEIGHTS.initial, PROJECT, 3, "a large study")
    assert [type(event) for event in said] == [ProjectWeighted]
    assert domain.weigh(domain.WEIGHTS.after(said), PROJECT, 3, "a large study") == []

    drained = domain.drain(domain.DRAINS.initial, "net1", True, "new disks")
    assert [type(event) for event in drained] == [NetDraining]
    assert domain.drain(domain.DRAINS.after(drained), "net1", True, "new disks") == []
    back = domain.drain(domain.DRAINS.after(drained), "net1", False, "disks are in")
    assert [type(event) for event in back] == [NetUndrained]
    assert domain.drain(domain.DRAINS.after([*drained, *back]), "net1", False, "again") == []


@pytest.mark.requirement("RUN-3")
def test_a_net_that_has_a_run_or_could_be_given_one_is_not_retired() -> None:
    with pytest.raises(Refused) as refusal:
        domain.retire("net1", "held", "lost its database", draining=True)
    assert refusal.value.code == "net-has-a-run"
    with pytest.raises(Refused) as refusal:
        domain.retire("net1", "free", "lost its database", draining=False)
    assert refusal.value.code == "net-in-service"
    drained = domain.drain(domain.DRAINS.initial, "net1", True, "new disks")
    retired = domain.retire("net1", "free", "moved away", draining=domain.DRAINS.after(drained))
    assert retired == NetRetired(net="net1", reason="moved away")
    assert domain.DRAINS.after([*drained, retired]) is False
    for state in ("lost", "silent", "released"):
        assert domain.retire("net1", state, "lost its database", draining=False).net == "net1"
