"""Small data sets in nnU-Net's raw format, made from a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Family:
    """How a site's images are: spacing in mm, shape in voxels (both vary a little by case), intensities, channels."""

    seed: int
    cases: int
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shape: tuple[int, int, int] = (24, 24, 24)
    shift: float = 0.0
    scale: float = 1.0
    channels: int = 1
    integer: bool = True


def write_dataset(raw: Path, name: str, *families: Family) -> Path:
    """Write `raw/name` with the cases of all families; the same family gives the same cases in every data set."""
    folder = raw / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for family in families:
        rng = np.random.default_rng(family.seed)
        for number in range(family.cases):
            _write_case(folder, f"case_{family.seed:03d}_{number:03d}", family, rng)
    channels = families[0].channels
    description = {
        "channel_names": {str(channel): "CT" if channel == 0 else "MRI" for channel in range(channels)},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": sum(family.cases for family in families),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def _write_case(folder: Path, name: str, family: Family, rng: np.random.Generator) -> None:
    shape = tuple(int(edge + rng.integers(-2, 3)) for edge in family.shape)
    affine = np.diag([*(np.array(family.spacing) * rng.uniform(0.95, 1.05, 3)), 1.0])
    label = _blobs(shape, rng)
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"{name}.nii.gz")
    for channel in range(family.channels):
        image = rng.normal(0, 15, shape) + np.array([0, 60, 160])[label] * (channel + 1)
        image = image * family.scale + family.shift
        image[:2] = 0  # an empty border, for the cropping
        stored = np.round(image).astype(np.int16) if family.integer else image.astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(stored, affine), folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz")


def _blobs(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    label = np.zeros(shape, np.uint8)
    grid = np.stack(np.meshgrid(*[np.arange(edge) for edge in shape], indexing="ij"), -1)
    for value in (1, 2):
        centre = rng.uniform(0.3, 0.7, len(shape))
        radius = rng.uniform(0.14, 0.24)
        label[((grid / shape - centre) ** 2).sum(-1) < radius**2] = value
    return label
