"""Validates any site's model on this site's held-out studies: a MONAI FL `ClientAlgo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from flip import FLIP
from flip_datasets import StudyDataset
from models import get_model
from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from scores import mean_dice


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
        return ExchangeObject(metrics={"val_dice": mean_dice(self._model, self._dataset)})
