"""The training payload: what it accepts, and how it names what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flip_nnunet.job import Job
from flip_nnunet.payload import DEMO, TrainingPayload
from pydantic import ValidationError

LEAST: dict[str, Any] = {"mode": "training", "num_rounds": 3, "dataset_id": 7, "model_configuration": "2d"}


@pytest.mark.requirement("NNU-6")
def test_the_least_payload_gets_the_documented_defaults():
    payload = TrainingPayload.model_validate(LEAST)
    assert payload.model_dump() == {
        **LEAST,
        "device": "cuda",
        "fold_id": "all",
        "trainer_name": "nnUNetTrainer",
        "epochs_per_round": 1,
        "starting_fed_round": 0,
    }


@pytest.mark.requirement("NNU-6")
def test_numbers_may_be_written_as_text():
    payload = TrainingPayload.model_validate(
        {**LEAST, "num_rounds": "2", "dataset_id": "12", "fold_id": "3", "epochs_per_round": "4"}
    )
    assert (payload.num_rounds, payload.dataset_id, payload.fold_id, payload.total_epochs) == (2, 12, 3, 8)


@pytest.mark.requirement("NNU-6")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "inference"),
        ("num_rounds", 0),
        ("num_rounds", "many"),
        ("dataset_id", 0),
        ("dataset_id", 1000),
        ("model_configuration", "4d"),
        ("device", "tpu"),
        ("fold_id", "some"),
        ("fold_id", -1),
        ("trainer_name", "os.system"),
        ("trainer_name", "nnUNetTrainerOfMine"),
        ("epochs_per_round", 0),
        ("starting_fed_round", -1),
        ("starting_fed_round", 3),
        ("learning_rate", 0.1),
    ],
)
def test_a_wrong_or_unknown_field_is_refused_by_its_name(field: str, value: object):
    with pytest.raises(ValidationError) as refused:
        TrainingPayload.model_validate({**LEAST, field: value})
    assert field in str(refused.value)


@pytest.mark.requirement("NNU-4")
@pytest.mark.parametrize("configuration", ["2d", "3d_lowres", "3d_fullres"])
def test_every_configuration_but_a_cascade_is_accepted(configuration: str):
    assert TrainingPayload.model_validate({**LEAST, "model_configuration": configuration})


@pytest.mark.requirement("NNU-4")
def test_a_cascade_is_refused_by_name():
    with pytest.raises(ValidationError, match="3d_cascade_fullres is a cascade"):
        TrainingPayload.model_validate({**LEAST, "model_configuration": "3d_cascade_fullres"})


@pytest.mark.requirement("NNU-6")
@pytest.mark.parametrize("name", ["nnUNetTrainerDA5", "nnUNetTrainerNoMirroring", "nnUNetTrainer_250epochs"])
def test_any_trainer_of_nnunet_is_accepted(name: str):
    assert TrainingPayload.model_validate({**LEAST, "trainer_name": name}).trainer_name == name


@pytest.mark.parametrize(
    ("field", "value"), [("dataset_name", "Dataset008_x"), ("dataset_name", "../x"), ("run_id", "../x")]
)
def test_a_job_refuses_names_that_do_not_belong_to_it(field: str, value: str):
    job = {"run_id": "r", "dataset_name": "Dataset007_x", "payload": LEAST, "profile": DEMO.model_dump(), "seed": 1}
    assert Job.model_validate(job)
    with pytest.raises(ValidationError, match=field):
        Job.model_validate({**job, field: value})
