"""Federated prediction: each data set where it lies, and nothing leaves that a site does not give."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from flip_nnunet import inference
from flip_nnunet.federation import JobUnfit, Outcome, federate
from flip_nnunet.inference import InferenceOutcome, ModelsDiffer, infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.local import LocalSites
from flip_nnunet.message import Json, Message, SitesFailed
from flip_nnunet.payload import ComputeProfile, TrainingPayload
from flip_nnunet.predict import Predictor
from flip_nnunet.seal import SealBroken, check
from flip_nnunet.site_settings import Predictions
from flip_nnunet.store import FolderStore, ModelMissing
from numpy.typing import NDArray
from synthetic import Family, write_dataset
from workers_here import Change, SitesHere, WorkersHere, unchanged

pytestmark = pytest.mark.requirement("NNU-8")

TINY = ComputeProfile(
    name="tiny",
    base_features=8,
    max_features=16,
    max_batch_size=4,
    iterations_per_epoch=60,
    initial_lr=0.03,
    validation_iterations=1,
    threads=1,
    augmentation_processes=0,
    intensity_voxels=10**5,
)
FLAT = Family(0, 3, spacing=(4.0, 1.0, 1.0), shape=(8, 24, 24))
"""Few slices: each is predicted on its own."""
FAMILIES = {"KCH": replace(FLAT, seed=1, cases=4), "UCLH": replace(FLAT, seed=2)}
MODEL = "Dataset005_brains/nnUNetTrainer__nnUNetPlans__2d"


def job(**payload: Any) -> InferenceJob:
    asked = {
        "mode": "inference",
        "checkpoint_path": MODEL,
        "dataset_subdirs": {"5": "imagesTr"},
        "device": "cpu",
    }
    return InferenceJob.model_validate({"run_id": "run", "payload": asked | payload, "profile": TINY})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    for site, family in FAMILIES.items():
        write_dataset(folder / site / "nnUNet_raw", f"Dataset005_of_{site}", family)
    return {site: folder / site for site in FAMILIES}


@pytest.fixture(scope="module")
def trained(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A model trained for one round."""
    folder = tmp_path_factory.mktemp("trained")
    payload = {"mode": "training", "num_rounds": 1, "dataset_id": 5, "model_configuration": "2d", "device": "cpu"}
    asked = Job(
        run_id="earlier",
        dataset_name="Dataset005_brains",
        payload=TrainingPayload.model_validate(payload),
        profile=TINY,
        seed=7,
    )
    return federate(WorkersHere(data, folder, asked), asked, FolderStore(folder / "hub"), lambda _: None)


@pytest.fixture(scope="module")
def models(trained: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each site's own models lie."""
    folder = tmp_path_factory.mktemp("models")
    with zipfile.ZipFile(trained.results.archive) as archive:
        archive.extractall(folder)
    return folder


@dataclass
class Federation:
    """Sites for a prediction, each with what it gives; KCH gives scores alone, UCLH masks, unless told otherwise."""

    data: dict[str, Path]
    work: Path
    models: Path | None
    gives: dict[str, Predictions] = field(default_factory=lambda: {"KCH": "scores", "UCLH": "masks"})
    minimum_cases: int = 3
    change: Change = unchanged
    events: list[Json] = field(default_factory=list)

    def sites(self, asked: InferenceJob) -> SitesHere:
        return SitesHere(
            {
                site: Predictor(data, self.work / site, asked, self.minimum_cases, self.gives[site], self.models)
                for site, data in self.data.items()
            },
            self.change,
        )

    def infer(self, asked: InferenceJob) -> InferenceOutcome:
        return infer(self.sites(asked), asked, FolderStore(self.work / "hub"), self.events.append)

    def told(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["kind"] == kind]


@dataclass(frozen=True)
class Predicted:
    federation: Federation
    outcome: InferenceOutcome

    def members(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.outcome.results.archive) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def masks(self, site: str) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.members()[f"predictions/{site}/Dataset005.zip"])) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def scores(self, site: str) -> Json:
        return json.loads(self.members()["predictions/scores.json"])["5"][site]


@pytest.fixture(scope="module")
def predicted(data: dict[str, Path], models: Path, tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    there = Federation(data, tmp_path_factory.mktemp("predicted"), models)
    return Predicted(there, there.infer(job()))


@pytest.fixture
def federation(predicted: Predicted, tmp_path: Path) -> Federation:
    """The sites as they stand after a prediction, which another attempt finds done."""
    before = predicted.federation
    for site in before.data:
        shutil.copytree(before.work / site, tmp_path / site)
    return Federation(before.data, tmp_path, before.models)


def test_masks_leave_the_site_that_gives_them_and_only_scores_the_other(predicted: Predicted):
    assert predicted.members().keys() == {
        "predictions/seal.json",
        "predictions/scores.json",
        "predictions/UCLH/Dataset005.zip",
    }
    assert predicted.masks("UCLH").keys() == {f"case_002_{number:03d}.nii.gz" for number in range(3)}
    assert (predicted.scores("KCH")["masks"], predicted.scores("KCH")["cases"]) == (None, 4)
    assert predicted.outcome.cases == {"5": {"KCH": 4, "UCLH": 3}}


def test_the_masks_are_those_of_a_plain_nnunetv2_predict(
    predicted: Predicted, data: dict[str, Path], models: Path, tmp_path: Path
):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    images = data["UCLH"] / "nnUNet_raw" / "Dataset005_of_UCLH" / "imagesTr"
    subprocess.run(
        [
            *(Path(sys.executable).with_name("nnUNetv2_predict"), "-i", images, "-o", tmp_path),
            *("-d", "005", "-c", "2d", "-f", "all", "-device", "cpu", "-npp", "0", "-nps", "0"),
        ],
        env=plain | {"nnUNet_results": str(models), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    for name, content in predicted.masks("UCLH").items():
        ours = np.asanyarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
        theirs = voxels(tmp_path / name)
        assert theirs.any(), "a mask without a voxel would show nothing"
        np.testing.assert_array_equal(ours, theirs)


def voxels(file: Path) -> NDArray[np.generic]:
    return np.asanyarray(nibabel.Nifti1Image.from_filename(file).dataobj)


def test_the_scores_are_the_mean_dice_over_the_labelled_cases(predicted: Predicted, data: dict[str, Path]):
    labels = data["UCLH"] / "nnUNet_raw" / "Dataset005_of_UCLH" / "labelsTr"
    by_hand: dict[str, list[float]] = {"organ": [], "lesion": []}
    for name, content in predicted.masks("UCLH").items():
        mask = np.asanyarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
        for value, structure in enumerate(by_hand, start=1):
            found, true = mask == value, voxels(labels / name) == value
            by_hand[structure].append(2 * (found & true).sum() / (found.sum() + true.sum()))
    told = predicted.scores("UCLH")["scores"]
    assert told["cases"] == 3
    for structure, dices in by_hand.items():
        assert told["dice"][structure]["cases"] == 3
        assert told["dice"][structure]["mean"] == pytest.approx(np.mean(dices), abs=1e-12)
    assert told["dice"]["lesion"]["mean"] > 0.1, "a model that finds nothing would show nothing"


def test_a_prediction_tells_its_stages_in_order(predicted: Predicted):
    assert [event["kind"] for event in predicted.federation.events] == [
        *("preparing", "model-loaded", "predicting", "predicted", "exported")
    ]
    assert predicted.federation.told("predicting")[0]["datasets"] == {"5": {"KCH": 4, "UCLH": 3}}
    sites = predicted.federation.told("predicted")[0]["sites"]
    assert (sites["KCH"]["masks_bytes"], sites["KCH"]["cases"]) == (None, 4)
    assert sites["UCLH"]["masks_bytes"] == len(predicted.members()["predictions/UCLH/Dataset005.zip"])


@pytest.mark.requirement("FILE-6")
def test_the_seal_holds_for_what_came_back_and_names_the_model_and_the_data(predicted: Predicted, trained: Outcome):
    sealed, digest = check(predicted.outcome.results.archive)
    assert digest == predicted.outcome.facts()["seal_sha256"]
    assert sealed["model"]["weights"] == trained.weights_digest
    assert sealed["model"]["plan"] == trained.plan_digest
    assert sealed["sites"]["KCH"]["datasets"]["5"]["cases"] == 4
    assert sealed["sites"]["KCH"]["datasets"] != sealed["sites"]["UCLH"]["datasets"]
    assert sealed["job"]["payload"]["dataset_subdirs"] == {"5": "imagesTr"}


def test_no_mean_over_fewer_cases_than_the_site_s_least_number_is_told(
    data: dict[str, Path], models: Path, tmp_path: Path
):
    folder = tmp_path / "data" / "nnUNet_raw" / "Dataset005_few"
    shutil.copytree(data["KCH"] / "nnUNet_raw" / "Dataset005_of_KCH", folder)
    for label in sorted((folder / "labelsTr").iterdir())[2:]:
        label.unlink()
    there = Federation({"KCH": tmp_path / "data"}, tmp_path / "work", models, {"KCH": "scores"})
    there.infer(job())
    told = there.told("predicted")[0]["sites"]["KCH"]
    assert (told["cases"], told["scores"]) == (4, None)


def test_a_structure_that_too_few_cases_have_gets_no_mean(data: dict[str, Path], models: Path, tmp_path: Path):
    folder = tmp_path / "data" / "nnUNet_raw" / "Dataset005_rare"
    shutil.copytree(data["KCH"] / "nnUNet_raw" / "Dataset005_of_KCH", folder)
    asked = job()
    there = Federation({"KCH": tmp_path / "data"}, tmp_path / "work", models, {"KCH": "scores"})
    masks = tmp_path / "work" / "KCH" / "runs" / "run" / "predictions" / "5"
    there.infer(asked)
    for number, label in enumerate(sorted((folder / "labelsTr").iterdir())):
        image = nibabel.Nifti1Image.from_filename(label)
        organ_alone = np.minimum(np.asanyarray(image.dataobj), 1) if number else np.asanyarray(image.dataobj)
        for file in (label, masks / label.name):
            nibabel.Nifti1Image(organ_alone, image.affine).to_filename(file)
    there.infer(asked)
    scores = there.told("predicted")[-1]["sites"]["KCH"]["scores"]
    assert scores["dice"] == {"organ": {"cases": 4, "mean": 1.0}, "lesion": None}


def test_what_was_predicted_before_an_interruption_is_not_predicted_again(federation: Federation):
    masks = {site: federation.work / site / "runs" / "run" / "predictions" / "5" for site in FAMILIES}
    made = {file: file.stat().st_mtime_ns for folder in masks.values() for file in folder.iterdir()}
    (missing := next(iter(masks["KCH"].iterdir()))).unlink()
    federation.infer(job())
    again = {file for file, time in made.items() if file.stat().st_mtime_ns != time}
    assert again == {missing}


def test_masks_travel_in_parts_that_the_hub_puts_together(
    federation: Federation, predicted: Predicted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "PART_BYTES", 100)
    asked = job()
    sites = federation.sites(asked)
    outcome = infer(sites, asked, FolderStore(federation.work / "hub"), lambda _: None)
    parts = [answer.arrays["part"].size for operation, _, answer in sites.answers if operation == "collect"]
    assert len(parts) > 3
    assert max(parts) == 100
    assert Predicted(federation, outcome).masks("UCLH") == predicted.masks("UCLH")


@pytest.mark.requirement("NNU-7")
def test_the_results_of_an_earlier_run_predict_as_the_same_model_at_the_sites_does(
    data: dict[str, Path], trained: Outcome, predicted: Predicted, tmp_path: Path
):
    (tmp_path / "hub").mkdir()
    shutil.copy(trained.results.archive, tmp_path / "hub" / "earlier.zip")
    there = Federation(data, tmp_path, None)
    outcome = there.infer(job(checkpoint_path="run:earlier"))
    assert Predicted(there, outcome).masks("UCLH") == predicted.masks("UCLH")
    assert there.told("model-loaded") == predicted.federation.told("model-loaded")


def test_a_spawned_site_predicts_what_direct_calls_do(
    data: dict[str, Path], models: Path, predicted: Predicted, tmp_path: Path
):
    asked = job()
    with LocalSites({"UCLH": data["UCLH"]}, tmp_path, asked, 3, "masks", models) as sites:
        outcome = infer(sites, asked, FolderStore(tmp_path / "hub"), lambda _: None)
    assert Predicted(predicted.federation, outcome).masks("UCLH") == predicted.masks("UCLH")


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize(
    ("payload", "code", "named"),
    [
        ({"fold_id": 2}, "fold-missing", "fold_id"),
        ({"checkpoint_path": "Dataset009_other"}, "model-missing", "checkpoint_path"),
        ({"checkpoint_path": "../elsewhere"}, "path-leads-out", "checkpoint_path"),
        ({"checkpoint_path": "/etc"}, "path-leads-out", "checkpoint_path"),
        ({"dataset_subdirs": {"6": "imagesTr"}}, "dataset-missing", "dataset_subdirs"),
        ({"dataset_subdirs": {"5": "imagesTs"}}, "folder-missing", "dataset_subdirs.5"),
        ({"device": "mps"}, "device-missing", "mps"),
    ],
)
def test_what_a_site_cannot_do_is_told_with_the_field(federation: Federation, payload: Json, code: str, named: str):
    with pytest.raises(SitesFailed, match=named) as failed:
        federation.infer(job(**payload))
    assert {failure.code for failure in failed.value.failures.values()} == {code}


@pytest.mark.requirement("NNU-7")
def test_the_best_round_predicts_where_a_model_has_one_and_its_lack_is_told_where_it_has_none(
    data: dict[str, Path], models: Path, predicted: Predicted, tmp_path: Path
):
    asked = job(checkpoint_name="checkpoint_best.pth")
    there = Federation(data, tmp_path / "best", models)
    assert Predicted(there, there.infer(asked)).masks("UCLH") == predicted.masks("UCLH"), "the one round is the best"
    without = shutil.copytree(models, tmp_path / "models")
    for file in without.rglob("checkpoint_best.pth"):
        file.unlink()
    with pytest.raises(SitesFailed, match="checkpoint_name") as failed:
        Federation(data, tmp_path / "none", without).infer(asked)
    assert {failure.code for failure in failed.value.failures.values()} == {"checkpoint-missing"}


@pytest.mark.requirement("NNU-7")
def test_a_data_set_that_no_site_has_is_named(federation: Federation):
    with pytest.raises(JobUnfit, match=r"dataset_subdirs\.6: no site"):
        federation.infer(job(dataset_subdirs={"5": "imagesTr", "6": "imagesTr"}))


@pytest.mark.requirement("NNU-7")
@pytest.mark.parametrize("what", ["folder", "image", "label"])
def test_a_link_that_leads_out_of_the_data_set_is_not_followed(
    data: dict[str, Path], models: Path, tmp_path: Path, what: str
):
    folder = tmp_path / "data" / "nnUNet_raw" / "Dataset005_linked"
    shutil.copytree(data["KCH"] / "nnUNet_raw" / "Dataset005_of_KCH", folder)
    image, label = (sorted((folder / part).iterdir())[0] for part in ("imagesTr", "labelsTr"))
    linked = {"folder": folder / "imagesTr", "image": image, "label": label}[what]
    linked.rename(tmp_path / linked.name)
    linked.symlink_to(tmp_path / linked.name)
    there = Federation({"KCH": tmp_path / "data"}, tmp_path / "work", models, {"KCH": "masks"})
    with pytest.raises(SitesFailed, match=r"path-leads-out \(dataset_subdirs\.5"):
        there.infer(job())


def test_a_data_set_below_the_site_s_least_number_of_cases_is_not_predicted(federation: Federation):
    federation.minimum_cases = 4
    with pytest.raises(SitesFailed) as failed:
        federation.infer(job())
    assert {site: failure.code for site, failure in failed.value.failures.items()} == {"UCLH": "too-few-cases"}
    assert not federation.told("predicting")


def test_images_of_other_channels_than_the_model_s_are_refused(models: Path, tmp_path: Path):
    write_dataset(tmp_path / "data" / "nnUNet_raw", "Dataset005_two", replace(FLAT, channels=2))
    there = Federation({"KCH": tmp_path / "data"}, tmp_path / "work", models, {"KCH": "masks"})
    with pytest.raises(SitesFailed, match=r"schema-differs \(dataset_subdirs\.5: has other channel_names"):
        there.infer(job())


def test_sites_with_other_models_at_the_path_predict_nothing(data: dict[str, Path], models: Path, tmp_path: Path):
    other = tmp_path / "models"
    shutil.copytree(models, other)
    file = other / MODEL / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    next(iter(checkpoint["network_weights"].values())).mul_(2)
    torch.save(checkpoint, file)
    asked = job()
    workers = {
        site: Predictor(data[site], tmp_path / site, asked, 3, "masks", folder)
        for site, folder in (("KCH", models), ("UCLH", other))
    }
    with pytest.raises(ModelsDiffer, match="/weights"):
        infer(SitesHere(workers), asked, FolderStore(tmp_path / "hub"), lambda _: None)


def test_a_checkpoint_that_would_run_code_is_refused(federation: Federation, models: Path, tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    federation.models = tmp_path / "models"
    shutil.copytree(models, federation.models)
    torch.save({"network_weights": Bomb()}, federation.models / MODEL / "fold_all" / "checkpoint_final.pth")
    with pytest.raises(SitesFailed, match="model-unreadable"):
        federation.infer(job())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network_class_name", "subprocess.Popen"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.sys.exit"),
        ("conv_op", "subprocess.Popen"),
    ],
)
def test_a_plan_that_would_import_other_things_than_nnunet_s_networks_is_refused(
    federation: Federation, models: Path, tmp_path: Path, key: str, value: str
):
    federation.models = tmp_path / "models"
    shutil.copytree(models, federation.models)
    file = federation.models / MODEL / "plans.json"
    plan = json.loads(file.read_text())
    architecture = plan["configurations"]["2d"]["architecture"]
    (architecture if key in architecture else architecture["arch_kwargs"])[key] = value
    file.write_text(json.dumps(plan))
    with pytest.raises(SitesFailed, match="architecture-unknown"):
        federation.infer(job())


def test_a_checkpoint_as_nnunet_s_own_trainer_writes_it_is_read(
    federation: Federation, trained: Outcome, models: Path, tmp_path: Path
):
    federation.models = tmp_path / "models"
    shutil.copytree(models, federation.models)
    [own] = trained.results.archive.parents[2].rglob("KCH/runs/earlier/states/round_00000.pth")
    assert "optimizer_state" in torch.load(own, weights_only=False)
    shutil.copy(own, federation.models / MODEL / "fold_all" / "checkpoint_final.pth")
    federation.infer(job())
    assert federation.told("model-loaded")[0]["weights"] != trained.weights_digest


@pytest.mark.parametrize("site_gives", ["scores", "masks"])
def test_a_site_that_keeps_its_masks_gives_no_part_of_them(federation: Federation, site_gives: Predictions):
    asked = job()
    federation.gives = dict.fromkeys(FAMILIES, site_gives)
    federation.infer(asked)
    site = federation.sites(asked).workers["KCH"]
    answer = site.handle("collect", Message({"dataset": "5", "offset": 0, "bytes": 10}))
    assert (answer.meta.get("failure", {}).get("code") == "masks-stay") is (site_gives == "scores")
    assert bool(answer.arrays) is (site_gives == "masks")


@pytest.mark.parametrize(
    ("operation", "wrong", "code"),
    [
        ("describe", {"datasets": {"5": {"cases": 0, "data": "a" * 64}}}, "malformed-answer"),
        ("describe", {"datasets": {"9": {"cases": 3, "data": "a" * 64}}}, "malformed-answer"),
        ("load", {"model": {}}, "malformed-answer"),
        ("predict", {"cases": 2}, "malformed-answer"),
        ("predict", {"scores": {"cases": 3, "dice": {"name of a patient": None}}}, "malformed-answer"),
        (
            "predict",
            {"scores": {"cases": 3, "dice": {"organ": {"cases": 3, "mean": float("nan")}}}},
            "malformed-answer",
        ),
        ("predict", {"archive": {"bytes": 2**40, "sha256": "a" * 64}}, "archive-too-large"),
        ("predict", {"archive": {"bytes": 10, "sha256": "a" * 64}}, "archive-differs"),
    ],
)
def test_a_site_that_answers_wrongly_is_named(federation: Federation, operation: str, wrong: Json, code: str):
    def changed(asked: str, site: str, answer: Message) -> Message:
        return Message(answer.meta | wrong, answer.arrays) if (asked, site) == (operation, "UCLH") else answer

    federation.change = changed
    with pytest.raises(SitesFailed) as failed:
        federation.infer(job())
    assert {site: failure.code for site, failure in failed.value.failures.items()} == {"UCLH": code}


@pytest.mark.requirement("NNU-7")
def test_results_that_were_changed_since_they_were_sealed_predict_nothing(
    data: dict[str, Path], trained: Outcome, tmp_path: Path
):
    (tmp_path / "hub").mkdir()
    changed = tmp_path / "hub" / "earlier.zip"
    there = Federation(data, tmp_path, None)
    with pytest.raises(ModelMissing, match="checkpoint_path"):
        there.infer(job(checkpoint_path="run:earlier"))
    shutil.copy(trained.results.archive, changed)
    with zipfile.ZipFile(changed, "a") as archive:
        archive.writestr("more", b"")
    with pytest.raises(SealBroken, match="more was not sealed"):
        there.infer(job(checkpoint_path="run:earlier"))
    assert not there.told("predicting")
