"""What a model is worth: plain nnU-Net predicts the held-out cases, and Dice compares with the drawn labels."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from flip_local.layout import Layout

STRUCTURES = {1: "striatum", 2: "thalamus", 3: "hippocampus"}


class PredictionFailed(Exception):
    """Plain nnU-Net did not predict; the text is the end of what it printed."""


def judge(layout: Layout, results: Path, dataset_id: int, folder: Path) -> dict[str, Mapping[str, float]]:
    """The mean Dice of each structure on each Trust's held-out cases, as plain nnU-Net predicts them in `folder`."""
    models = unpack(results, folder)
    scores: dict[str, Mapping[str, float]] = {}
    for trust in layout.trusts:
        held_out = layout.folder(trust, "heldout", trust)
        predictions = folder / "predictions" / trust
        predictions.mkdir(parents=True)
        predict(layout, models, dataset_id, held_out / "images", predictions)
        scores[trust] = mean_dice(predictions, held_out / "labels")
    return scores


def unpack(results: Path, folder: Path) -> Path:
    """Unzip a run's results where nnU-Net looks for models; the folder is `nnUNet_results`."""
    models = folder / "nnUNet_results"
    with zipfile.ZipFile(results) as archive:
        archive.extractall(models)
    return models


def predict(layout: Layout, models: Path, dataset_id: int, images: Path, into: Path) -> None:
    """Run nnU-Net's own command on a folder of images. Raises PredictionFailed."""
    command = [
        str(layout.trainer_python("nvflare").parent / "nnUNetv2_predict"),
        *("-i", str(images), "-o", str(into), "-d", str(dataset_id), "-c", "2d", "-f", "all"),
        *("-device", "cpu", "-npp", "1", "-nps", "1"),
    ]
    environment = {
        **os.environ,
        "nnUNet_results": str(models),
        "nnUNet_raw": str(into),
        "nnUNet_preprocessed": str(into),
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PredictionFailed((done.stdout + done.stderr)[-2000:])


def dice(predicted: NDArray[Any], drawn: NDArray[Any], value: int) -> float:
    """Dice's coefficient of one structure: twice the overlap over the sum of both volumes."""
    ours, theirs = predicted == value, drawn == value
    return float(2 * np.count_nonzero(ours & theirs) / (np.count_nonzero(ours) + np.count_nonzero(theirs)))


def mean_dice(predictions: Path, labels: Path) -> Mapping[str, float]:
    """The mean Dice of each structure over all cases of a folder of labels."""
    cases = sorted(labels.glob("*.nii.gz"))
    if not cases:
        raise PredictionFailed(f"there is no label in {labels.name}")
    pairs = [(_voxels(predictions / case.name), _voxels(case)) for case in cases]
    return {
        name: float(np.mean([dice(predicted, drawn, value) for predicted, drawn in pairs]))
        for value, name in STRUCTURES.items()
    }


def _voxels(file: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(file).dataobj)  # pyright: ignore[reportAttributeAccessIssue]
