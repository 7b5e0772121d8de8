"""What the platform checks of a payload before it queues a run, and what the trainer checks, is one and the same.

The trainer has an environment of its own; the module that reads payloads needs nothing that is not here, too.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from flip_contracts.scheduler import InferencePayload, TrainingPayload
from pydantic import BaseModel, ValidationError

TRAINER = Path(__file__).parents[3] / "fl" / "nnunet" / "src" / "flip_nnunet" / "payload.py"
LEAST = {"mode": "training", "num_rounds": 2, "dataset_id": 7, "model_configuration": "2d"}


def trainers(name: str) -> type[BaseModel]:
    spec = importlib.util.spec_from_file_location("trainers_payload", TRAINER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: type[BaseModel] = getattr(module, name)
    model.model_rebuild(_types_namespace=vars(module))
    return model


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """Fields, bounds and defaults, without the words."""
    return {key: value for key, value in model.model_json_schema().items() if key != "description"}


def refusals(model: type[BaseModel], payload: dict[str, Any]) -> set[tuple[Any, str]]:
    try:
        model.model_validate(payload)
    except ValidationError as refused:
        return {(error["loc"], error["msg"]) for error in refused.errors()}
    return set()


@pytest.mark.requirement("NNU-6")
def test_platform_and_trainer_know_the_same_fields_bounds_and_defaults() -> None:
    assert schema(TrainingPayload) == schema(trainers("TrainingPayload"))


@pytest.mark.requirement("NNU-7")
def test_platform_and_trainer_refuse_the_same_predictions_and_take_the_same() -> None:
    least = {"mode": "inference", "checkpoint_path": "m", "dataset_subdirs": {"7": "imagesTs"}}
    theirs = trainers("InferencePayload")
    assert schema(InferencePayload) == schema(theirs)
    assert refusals(InferencePayload, least) == refusals(theirs, least) == set()
    wrong: list[dict[str, Any]] = [
        {"checkpoint_path": "a\0b"},
        {"checkpoint_path": "run:../x"},
        {"dataset_subdirs": {}},
        {"dataset_subdirs": {"007": "imagesTs"}},
        *({"dataset_subdirs": {"7": folder}} for folder in ("", ".", "/etc", "../x", "a/../../x", "..\\x")),
        {"apheris_dataset_subdirs": {"7": "imagesTs"}},
        {"num_rounds": 3},
    ]
    for change in wrong:
        assert refusals(InferencePayload, least | change) == refusals(theirs, least | change) != set()
    public = {name: value for name, value in least.items() if name != "dataset_subdirs"}
    read = InferencePayload.model_validate(public | {"apheris_dataset_subdirs": least["dataset_subdirs"]})
    assert read == InferencePayload.model_validate(least)
    assert (read.earlier_run, read.model_copy(update={"checkpoint_path": "run:r-1"}).earlier_run) == (None, "r-1")


@pytest.mark.requirement("NNU-6")
def test_numbers_may_be_written_as_text() -> None:
    written = {**LEAST, "num_rounds": "2", "dataset_id": "7", "fold_id": "3", "epochs_per_round": "4"}
    read = TrainingPayload.model_validate({**written, "starting_fed_round": "0"})
    assert read.model_dump() == {
        **LEAST,
        "device": "cuda",
        "fold_id": 3,
        "trainer_name": "nnUNetTrainer",
        "epochs_per_round": 4,
        "starting_fed_round": 0,
    }


@pytest.mark.requirement("NNU-9")
def test_the_trainer_goes_on_behind_the_last_round_and_no_further() -> None:
    read = trainers("TrainingPayload")
    assert read.model_validate({**LEAST, "starting_fed_round": LEAST["num_rounds"]})
    with pytest.raises(ValidationError, match="starting_fed_round: 3 is above num_rounds 2"):
        read.model_validate({**LEAST, "starting_fed_round": 3})


@pytest.mark.requirement("NNU-6")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "inference"),
        ("num_rounds", "many"),
        ("num_rounds", 10_000),
        ("dataset_id", 1000),
        ("fold_id", 5),
        ("trainer_name", "os.system"),
        ("epochs_per_round", 0),
        ("learning_rate", 0.1),
    ],
)
def test_a_wrong_or_unknown_field_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingPayload.model_validate({**LEAST, field: value})
    assert {error["loc"][0] for error in refused.value.errors()} == {field}
