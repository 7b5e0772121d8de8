"""Other trainers, configurations, folds and lengths of a round than the usual ones."""

from __future__ import annotations

import ast
import functools
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from flip_contracts.nnunet import TRAINERS, UNFIT, fit_trainer
from flip_nnunet.federation import Outcome, federate
from flip_nnunet.inference import infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.message import Json
from flip_nnunet.payload import ComputeProfile, TrainingPayload, trainer_modules
from flip_nnunet.predict import Predictor
from flip_nnunet.store import FolderStore
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from synthetic import Family, write_dataset
from workers_here import SitesHere, WorkersHere

TINY = ComputeProfile(
    name="tiny",
    base_features=4,
    max_features=8,
    max_batch_size=2,
    iterations_per_epoch=2,
    validation_iterations=1,
    threads=1,
    augmentation_processes=0,
    intensity_voxels=10**4,
)


# --- which trainers there are ---------------------------------------------------------------------------------------


@pytest.mark.requirement("NNU-6")
def test_the_platform_knows_every_trainer_of_nnunet_and_no_other():
    assert trainer_modules().keys() == TRAINERS


@pytest.mark.requirement("NNU-6")
def test_the_trainers_that_are_refused_are_those_that_keep_no_checkpoint_or_miss_their_optimiser():
    assert find_spec("adan_pytorch") is None
    wrong = ("self.disable_checkpointing = True", "if Adan is None:")
    assert {name for name in trainer_modules() if any(line in source(name) for line in wrong)} == UNFIT.keys()


def source(trainer: str) -> str:
    """The text of a trainer's class and of those that it is built on. To import all of them takes a minute."""
    package = find_spec("nnunetv2")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent.joinpath(*trainer_modules()[trainer].split(".")[1:]).with_suffix(".py")
    classes = {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)}
    bases = [base.id for base in classes[trainer].bases if isinstance(base, ast.Name) and base.id in trainer_modules()]
    return ast.unparse(classes[trainer]) + "".join(map(source, bases))


@pytest.mark.requirement("NNU-6")
@pytest.mark.parametrize("name", sorted(UNFIT))
def test_a_trainer_that_can_not_be_federated_is_refused_with_the_reason(name: str):
    with pytest.raises(ValueError, match=f"{name} can't be federated: it"):
        fit_trainer(name)


# --- what they do ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A federation of one site."""

    data: Path
    work: Path

    def run(self, asked: Job) -> tuple[Outcome, list[Json]]:
        """The outcome, and what was told of each round at the site."""
        events: list[Json] = []
        sites = WorkersHere({"KCH": self.data}, self.work, asked)
        outcome = federate(sites, asked, self.store, events.append)
        return outcome, [event["sites"]["KCH"] for event in events if event["kind"] == "round-complete"]

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.work / "hub")


def job(**payload: object) -> Job:
    asked = {"mode": "training", "dataset_id": 5, "model_configuration": "2d", "device": "cpu", **payload}
    return Job(
        run_id="run",
        dataset_name="Dataset005_brains",
        payload=TrainingPayload.model_validate(asked),
        profile=TINY,
        seed=7,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    write_dataset(tmp_path / "data" / "nnUNet_raw", "Dataset005_own", Family(1, 4))
    return Site(tmp_path / "data", tmp_path / "work")


def loaded_by_nnunet(outcome: Outcome, model: str, fold: int | str, to: Path) -> nnUNetPredictor:
    """nnU-Net's own predictor with the exported model, which it finds the trainer of by itself."""
    with zipfile.ZipFile(outcome.results.archive) as archive:
        archive.extractall(to)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folder = str(to / "Dataset005_brains" / model)
    predictor.initialize_from_trained_model_folder(folder, (fold,), "checkpoint_final.pth")  # pyright: ignore[reportArgumentType]
    return predictor


@pytest.mark.requirement("NNU-4")
@pytest.mark.requirement("NNU-5")
@pytest.mark.requirement("NNU-9")
@pytest.mark.parametrize(
    ("trainer", "rates"),
    [
        ("nnUNetTrainer", [0.01 * (1 - 1 / 4) ** 0.9, 0.01 * (1 - 3 / 4) ** 0.9]),
        ("nnUNetTrainer_warmup", [0.01 * 2 / 50, 0.01 * 4 / 50]),
    ],
)
def test_several_epochs_a_round_follow_the_trainers_schedule_resume_to_the_same_bits_and_load_in_nnunet(
    site: Site, tmp_path: Path, trainer: str, rates: list[float]
):
    payload = {"num_rounds": 2, "epochs_per_round": 2, "trainer_name": trainer}
    whole, rounds = site.run(job(**payload))
    assert [told["metrics"]["learning_rate"] for told in rounds] == pytest.approx(rates)

    resumed, again = site.run(job(**payload, starting_fed_round=1))
    assert [told["state"] for told in again] == ["disk"]
    assert resumed.weights_digest == whole.weights_digest

    predictor = loaded_by_nnunet(whole, f"{trainer}__nnUNetPlans__2d", "all", tmp_path / "results")
    assert predictor.trainer_name == trainer
    assert predictor.list_of_parameters is not None
    [weights] = predictor.list_of_parameters
    for name, expected in site.store.load_round(1).items():
        assert np.array_equal(weights[name].numpy(), expected)


@pytest.mark.requirement("NNU-9")
def test_a_site_that_lost_its_state_after_the_warm_up_goes_on_without_one(site: Site):
    first = WorkersHere({"KCH": site.data}, site.work, job(num_rounds=1, trainer_name="nnUNetTrainer_warmup"))
    federate(first, job(num_rounds=1, trainer_name="nnUNetTrainer_warmup"), site.store, lambda _: None)
    site.store.save_round(58, site.store.load_round(0))
    _, [told] = site.run(job(num_rounds=60, starting_fed_round=59, trainer_name="nnUNetTrainer_warmup"))
    assert told["state"] == "lost"
    assert told["metrics"]["learning_rate"] == pytest.approx(0.01 * (1 - 9 / 10) ** 0.9)


@pytest.mark.requirement("NNU-4")
@pytest.mark.requirement("NNU-7")
def test_a_fold_of_3d_lowres_is_trained_by_its_cases_exported_and_predicted(tmp_path: Path):
    write_dataset(tmp_path / "data" / "nnUNet_raw", "Dataset005_own", Family(1, 5, shape=(48, 48, 48)))
    site = Site(tmp_path / "data", tmp_path / "work")
    small = functools.partialmethod(ExperimentPlanner.__init__, gpu_memory_target_in_gb=0.02)
    with mock.patch.object(ExperimentPlanner, "__init__", small):  # so that these images are too large for fullres
        outcome, [told] = site.run(job(num_rounds=1, model_configuration="3d_lowres", fold_id=2))
    assert told["cases"] == 4

    model = "nnUNetTrainer__nnUNetPlans__3d_lowres"
    predictor = loaded_by_nnunet(outcome, model, 2, tmp_path / "models")
    assert predictor.configuration_manager is not None
    assert predictor.configuration_manager.spacing[0] > 1.5

    payload = {
        "mode": "inference",
        "checkpoint_path": f"Dataset005_brains/{model}",
        "dataset_subdirs": {"5": "imagesTr"},
        "device": "cpu",
        "fold_id": 2,
    }
    asked = InferenceJob.model_validate({"run_id": "prediction", "payload": payload, "profile": TINY})
    there = Predictor(site.data, tmp_path / "predicted", asked, 3, "masks", tmp_path / "models")
    predicted = infer(SitesHere({"KCH": there}), asked, FolderStore(tmp_path / "hub"), lambda _: None)
    assert predicted.cases == {"5": {"KCH": 5}}
    with zipfile.ZipFile(predicted.results.archive) as archive:
        assert "predictions/KCH/Dataset005.zip" in archive.namelist()
