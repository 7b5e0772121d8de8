"""What a federation learns is what the pooled data would have taught."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from flip_nnunet.federation import federate
from flip_nnunet.inference import infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.message import Json
from flip_nnunet.payload import ComputeProfile, TrainingPayload
from flip_nnunet.predict import Predictor
from flip_nnunet.store import FolderStore
from synthetic import Family, write_dataset
from workers_here import SitesHere, WorkersHere

SMALL = ComputeProfile(
    name="small",
    base_features=8,
    max_features=16,
    max_batch_size=6,
    iterations_per_epoch=40,
    validation_iterations=1,
    threads=1,
    augmentation_processes=0,
    intensity_voxels=10**5,
)
ROUNDS = 12
KCH = Family(1, 6, shape=(24, 28, 28))
UCLH = replace(KCH, seed=2, shift=20, scale=1.3)
UNSEEN = replace(KCH, seed=3, cases=4), replace(UCLH, seed=4, cases=4)
TOLERANCE = 0.02


def train(work: Path, **sites: tuple[Family, ...]) -> Path:
    """Train over the sites; returns the results."""
    data = {site: work / site / "data" for site in sites}
    for site, families in sites.items():
        write_dataset(data[site] / "nnUNet_raw", f"Dataset005_of_{site}", *families)
    payload = {"mode": "training", "num_rounds": ROUNDS, "dataset_id": 5, "model_configuration": "2d", "device": "cpu"}
    asked = Job(
        run_id="run",
        dataset_name="Dataset005_x",
        payload=TrainingPayload.model_validate(payload),
        profile=SMALL,
        seed=11,
    )
    return federate(WorkersHere(data, work, asked), asked, FolderStore(work / "hub"), lambda _: None).results.archive


def dice_of(results: Path, data: Path, work: Path) -> dict[str, float]:
    """The mean Dice of each structure over the cases that no training saw."""
    payload = {"mode": "inference", "checkpoint_path": "run:run", "dataset_subdirs": {"5": "imagesTr"}, "device": "cpu"}
    asked = InferenceJob.model_validate({"run_id": "test", "payload": payload, "profile": SMALL})
    (work / "hub").mkdir(parents=True)
    shutil.copy(results, work / "hub" / "earlier.zip")
    events: list[Json] = []
    site = Predictor(data, work / "site", asked, 8, "scores", None)
    infer(SitesHere({"TEST": site}), asked, FolderStore(work / "hub"), events.append)
    [predicted] = [event for event in events if event["kind"] == "predicted"]
    return {name: dice["mean"] for name, dice in predicted["sites"]["TEST"]["scores"]["dice"].items()}


@pytest.mark.requirement("NNU-4")
def test_on_the_same_number_of_steps_a_federation_reaches_the_dice_of_the_pooled_data(tmp_path: Path):
    write_dataset(tmp_path / "unseen" / "nnUNet_raw", "Dataset005_unseen", *UNSEEN)
    federated = train(tmp_path / "federated", KCH=(KCH,), UCLH=(UCLH,))
    pooled = train(tmp_path / "pooled", ALL=(KCH, UCLH))
    reached = dice_of(federated, tmp_path / "unseen", tmp_path / "of-federated")
    wanted = dice_of(pooled, tmp_path / "unseen", tmp_path / "of-pooled")
    assert wanted.keys() == reached.keys() == {"organ", "lesion"}
    assert min(wanted.values()) > 0.8, (wanted, reached)
    assert reached == pytest.approx(wanted, abs=TOLERANCE)
