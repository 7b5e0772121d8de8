"""The project's studies as tensors, through `flip` alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from flip import FLIP
from flip.constants import ResourceType
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """An image and its mask, each (1, D, H, W), float32."""

    image: Tensor
    mask: Tensor


def load_samples(flip: FLIP, project_id: str, query: str) -> list[Sample]:
    """One sample for each image with a label beside it."""
    samples: list[Sample] = []
    for accession_id in flip.get_dataframe(project_id, query)["accession_id"]:
        study = flip.get_by_accession_number(
            project_id, accession_id, resource_type=[ResourceType.NIFTI, ResourceType.SEGMENTATION]
        )
        for image in sorted(study.rglob("input_*.nii.gz")):
            label = image.with_name(image.name.replace("input_", "label_"))
            samples.append(Sample(_normalised(_voxels(image)), (_voxels(label) > 0).float()))
    return samples


def split(samples: list[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples; at least one is for validation."""
    held_out = max(1, round(len(samples) * share))
    return samples[held_out:], samples[:held_out]


def dice(model: torch.nn.Module, samples: list[Sample]) -> float:
    """The mean Dice of a model on some samples."""
    model.eval()
    scores: list[float] = []
    with torch.no_grad():
        for sample in samples:
            found = model(sample.image[None])[0] > 0
            overlap = 2 * (found * sample.mask).sum().item()
            scores.append(overlap / max(1.0, (found.sum() + sample.mask.sum()).item()))
    return float(np.mean(scores))


def _voxels(file: Path) -> Tensor:
    return torch.from_numpy(np.asarray(nibabel.load(file).dataobj, np.float32))[None]


def _normalised(image: Tensor) -> Tensor:
    return (image - image.mean()) / image.std().clamp_min(1e-6)
