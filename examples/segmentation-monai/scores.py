"""How good a network is."""

from __future__ import annotations

import torch
from flip_datasets import StudyDataset
from monai.data import DataLoader
from monai.metrics import DiceMetric
from monai.networks import one_hot
from torch import nn


def mean_dice(model: nn.Module, dataset: StudyDataset) -> float:
    """The mean Dice of the structure."""
    model.eval()
    dice = DiceMetric(include_background=False, ignore_empty=False)
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size=1):
            found = model(batch["image"]).argmax(1, keepdim=True)
            dice(one_hot(found, 2), one_hot(batch["label"], 2))
    return dice.aggregate().item()
