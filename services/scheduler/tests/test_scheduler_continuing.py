"""Runs that go on from an earlier one: which may, with which weights, and what is said where one can't. Pure."""

from typing import Any
from uuid import UUID

import pytest
from flip_chassis.refusal import Refused
from flip_contracts.base import ModelId, ProjectId, RunId
from flip_contracts.scheduler import Checkpoint, Continued, RunAssigned, RunQueued, TrainingPayload
from flip_scheduler import domain
from flip_scheduler.continuing import Continuing, Predecessor, continued
from flip_scheduler.domain import Model, Place, Readiness, Request
from flip_scheduler.fairness import Charge

EARLIER, RUN = RunId(UUID(int=1)), RunId(UUID(int=2))
PROJECT = ProjectId(UUID(int=3))
NNUNET = Model(ModelId(UUID(int=4)), PROJECT, "nvflare", "nnunet")
READY = Readiness(frozenset({"KCH"}), frozenset({"KCH"}), {"KCH": {"lesion": 1}}, True)
PAYLOAD = {"mode": "training", "num_rounds": 20, "dataset_id": 7, "model_configuration": "2d", "device": "cpu"}
STORED = TrainingPayload.model_validate(PAYLOAD).model_dump(mode="json")
PREDICTION = {"mode": "inference", "device": "cpu", "checkpoint_path": "m", "dataset_subdirs": {"7": "imagesTr"}}


def weights(*numbers: int) -> dict[int, Checkpoint]:
    return {number: Checkpoint(round=number, object=f"runs/1/{number}", digest="a" * 64) for number in numbers}


def before(*kept: int, has_ended: bool = True, payload: dict[str, Any] = STORED) -> Predecessor:
    return Predecessor(EARLIER, payload, has_ended, weights(*kept))


def initiated(predecessor: Predecessor | None, **changes: Any) -> RunQueued:
    return domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD | changes, continuing=Continuing(predecessor)))


def assigned(queued: RunQueued, checkpoint: Checkpoint | None) -> RunAssigned:
    return domain.assign(domain.RUNS.after([queued]), Place("net1", 1, READY.approved, Charge(0, 0)), checkpoint)


@pytest.mark.requirement("NNU-9")
def test_a_run_begins_with_the_weights_before_the_round_that_it_asks_for() -> None:
    queued = initiated(before(0, 1, 2, 3), starting_fed_round=3)
    assert queued.continues == Continued(run_id=EARLIER, checkpoint=weights(2)[2])
    given = assigned(queued, weights(2)[2])
    assert (given.continues, given.payload["starting_fed_round"]) == (queued.continues, 3)


@pytest.mark.requirement("NNU-9")
def test_a_run_has_no_round_of_its_own_until_it_has_trained_one() -> None:
    queued = initiated(before(0, 1, 2, 3), starting_fed_round=3)
    assert not assigned(queued, weights(2)[2]).has_own_round
    assert assigned(queued, weights(3)[3]).has_own_round
    anew = domain.initiate(RUN, NNUNET, READY, Request(PAYLOAD))
    assert not assigned(anew, None).has_own_round
    assert assigned(anew, weights(0)[0]).has_own_round


@pytest.mark.requirement("NNU-9")
def test_weights_after_the_last_round_may_be_made_results_of_and_a_longer_training_goes_on_from_them() -> None:
    for rounds in (20, 40):
        queued = initiated(before(*range(20)), starting_fed_round=20, num_rounds=rounds)
        assert queued.continues is not None
        assert queued.continues.checkpoint.round == 19


@pytest.mark.requirement("RUN-9")
@pytest.mark.requirement("RUN-10")
def test_an_app_goes_on_behind_the_last_completed_round() -> None:
    own = Model(ModelId(UUID(int=5)), PROJECT, "nvflare", "custom")
    continuing = Continuing(before(0, 1, payload={"mode": "app", "local_rounds": None}))
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, own, READY, Request({"mode": "app"}, continuing=continuing))
    assert "continues" not in {each.get("field") for each in caught.value.facts["missing"]}
    from_it = continued(Request({"mode": "app"}).read_payload("custom"), continuing)
    assert from_it == Continued(run_id=EARLIER, checkpoint=weights(1)[1])


@pytest.mark.requirement("NNU-9")
@pytest.mark.parametrize(
    ("predecessor", "changes", "field", "says"),
    [
        (None, {"starting_fed_round": 1}, "continues", "No run of this project"),
        (before(0, payload={"mode": "app"}), {"starting_fed_round": 1}, "continues", "No run of this project"),
        (before(0, payload=PREDICTION), {"starting_fed_round": 1}, "continues", "No run of this project"),
        (before(0, has_ended=False), {"starting_fed_round": 1}, "continues", "stop it first"),
        (before(), {"starting_fed_round": 1}, "continues", "no completed round"),
        (before(0, 1, 2), {}, "payload.starting_fed_round", "let it be 1 to 3."),
        (
            before(0, 1, 4, 6, 7),
            {"starting_fed_round": 3},
            "payload.starting_fed_round",
            "let it be 1 to 2, 5, 7 to 8.",
        ),
        (before(0, 1), {"starting_fed_round": 2, "num_rounds": 1}, "payload.starting_fed_round", "above num_rounds, 1"),
        (before(0), {"starting_fed_round": 1, "fold_id": 2}, "payload.fold_id", "has all."),
        (
            before(0),
            {"starting_fed_round": 1, "model_configuration": "3d_fullres"},
            "payload.model_configuration",
            "2d",
        ),
        (before(0), {"starting_fed_round": 1, "trainer_name": "nnUNetTrainerNoDA"}, "payload.trainer_name", "Trainer."),
        (before(0), PREDICTION, "continues", "trains nothing"),
    ],
)
def test_a_run_that_can_not_go_on_as_asked_is_refused_with_the_field(
    predecessor: Predecessor | None, changes: dict[str, Any], field: str, says: str
) -> None:
    payload = changes if changes.get("mode") == "inference" else PAYLOAD | changes
    with pytest.raises(Refused) as caught:
        domain.initiate(RUN, NNUNET, READY, Request(payload, continuing=Continuing(predecessor)))
    [missing] = caught.value.facts["missing"]
    assert missing["field"] == field
    assert says in missing["detail"]
