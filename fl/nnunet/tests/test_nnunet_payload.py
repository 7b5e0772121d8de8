"""The training payload: what it accepts, and how it names what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flip_nnunet.job import Job
from flip_nnunet.payload import DEMO, InferencePayload, TrainingPayload
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
        ("num_rounds", 10_000),
        ("num_rounds", "2.5"),
        ("num_rounds", "many"),
        ("dataset_id", 0),
        ("dataset_id", 1000),
        ("model_configuration", "4d"),
        ("device", "tpu"),
        ("fold_id", "some"),
        ("fold_id", -1),
        ("fold_id", 5),
        ("trainer_name", "os.system"),
        ("trainer_name", "nnUNetTrainerOfMine"),
        ("trainer_name", "nnUNetTrainerBenchmark_5epochs"),
        ("epochs_per_round", 0),
        ("starting_fed_round", -1),
        ("starting_fed_round", 4),
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
@pytest.mark.parametrize(
    "name", ["nnUNetTrainerDA5", "nnUNetTrainer_250epochs", "nnUNet_Trainer_BS8", "nnUNet_PrimusV3M_Trainer"]
)
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


# --- inference ------------------------------------------------------------------------------------------------------

INFERENCE: dict[str, Any] = {
    "mode": "inference",
    "checkpoint_path": "models/Dataset007_x/nnUNetTrainer__nnUNetPlans__2d",
    "dataset_subdirs": {"7": "imagesTs"},
}


@pytest.mark.requirement("NNU-7")
def test_the_least_inference_payload_gets_the_documented_defaults():
    assert InferencePayload.model_validate(INFERENCE).model_dump() == {
        **INFERENCE,
        "fold_id": "all",
        "device": "cuda",
        "checkpoint_name": "checkpoint_final.pth",
    }


@pytest.mark.requirement("NNU-7")
def test_the_subdirectories_are_also_known_by_their_public_name_but_not_by_both_at_once():
    public = {name: value for name, value in INFERENCE.items() if name != "dataset_subdirs"}
    public["apheris_dataset_subdirs"] = INFERENCE["dataset_subdirs"]
    assert InferencePayload.model_validate(public) == InferencePayload.model_validate(INFERENCE)
    with pytest.raises(ValidationError, match="apheris_dataset_subdirs"):
        InferencePayload.model_validate(INFERENCE | public)


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "training"),
        ("checkpoint_path", ""),
        ("checkpoint_path", "models\0"),
        ("fold_id", "some"),
        ("fold_id", 5),
        ("device", "tpu"),
        ("dataset_subdirs", {}),
        ("dataset_subdirs", {"7": ""}),
        ("dataset_subdirs", {"7": "."}),
        ("dataset_subdirs", {"7": "/etc"}),
        ("dataset_subdirs", {"7": "../Dataset008_y"}),
        ("dataset_subdirs", {"7": "imagesTs/../../x"}),
        ("dataset_subdirs", {"7": "..\\x"}),
        ("checkpoint_name", "checkpoint_latest.pth"),
        ("num_rounds", 3),
    ],
)
def test_a_wrong_or_unknown_field_of_an_inference_is_refused_by_its_name(field: str, value: object):
    with pytest.raises(ValidationError) as refused:
        InferencePayload.model_validate({**INFERENCE, field: value})
    assert {error["loc"][0] for error in refused.value.errors()} == {field}
