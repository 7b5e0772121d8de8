"""Validates any site's model on this site's held-out studies: a MONAI FL `ClientAlgo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from flip import FLIP
from flip_datasets import StudyDataset
from models import get_model
from monai.data import DataLoader
from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from monai.metrics import DiceMetric
from monai.networks import one_hot


class FLIP_VALIDATOR(ClientAlgo):  # noqa: N801 - the name that the platform looks for
    """Answers with the mean Dice of the structure."""

    def __init__(self, project_id: str = "", query: str = "") -> None:
        self._project_id = project_id
        self._query = query

    def initialize(self, extra: dict[str, Any] | None = None) -> None:
        config = json.loads((Path(__file__).parent / "config.json").read_text())
        self._dataset = StudyDataset(FLIP(), self._project_id, self._query, config["VALIDATION_SHARE"], held_out=True)
        self._model = get_model()

    def evaluate(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> ExchangeObject:
        self._model.load_state_dict({name: torch.as_tensor(array) for name, array in data.weights.items()})
        self._model.eval()
        dice = DiceMetric(include_background=False, ignore_empty=False)
        with torch.no_grad():
            for batch in DataLoader(self._dataset, batch_size=1):
                found = self._model(batch["image"]).argmax(1, keepdim=True)
                dice(one_hot(found, 2), one_hot(batch["label"], 2))
        return ExchangeObject(metrics={"val_dice": dice.aggregate().item()})
