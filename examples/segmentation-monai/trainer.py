"""Trains the network on the project's studies: a MONAI FL `ClientAlgo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from flip import FLIP
from flip.nvflare.metrics import send_metrics_value
from flip.utils import get_model_weights_diff
from flip_datasets import StudyDataset
from models import get_model
from monai.data import DataLoader
from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.losses import DiceCELoss
from scores import mean_dice

Extra = dict[str, Any] | None


class FLIP_TRAINER(ClientAlgo):  # noqa: N801 - the name that the platform looks for
    """Trains `LOCAL_ROUNDS` epochs a round and returns the difference from the weights that it was given."""

    def __init__(self, project_id: str = "", query: str = "") -> None:
        self._project_id = project_id
        self._query = query

    def initialize(self, extra: Extra = None) -> None:
        config = json.loads((Path(__file__).parent / "config.json").read_text())
        self._epochs: int = config["LOCAL_ROUNDS"]
        self._flip = FLIP()
        project = (self._flip, self._project_id, self._query, config["VALIDATION_SHARE"])
        self._dataset = StudyDataset(*project, held_out=False)
        self._held_out = StudyDataset(*project, held_out=True)
        self._model = get_model()
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=config["LEARNING_RATE"])
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def train(self, data: ExchangeObject, extra: Extra = None) -> None:
        given = extra or {}
        self._given = data.weights
        self._model.load_state_dict({name: torch.as_tensor(array) for name, array in data.weights.items()})
        self._before = {"val_dice": mean_dice(self._model, self._held_out)}  # by it the platform finds the best model
        self._model.train()
        self._steps = 0
        for _ in range(self._epochs):
            total = 0.0
            for batch in DataLoader(self._dataset, batch_size=2, shuffle=True):
                if given["abort_signal"].triggered:
                    return
                total += self._step(batch)
            send_metrics_value("TRAIN_LOSS", total, given["fl_ctx"], flip=self._flip)

    def get_weights(self, extra: Extra = None) -> ExchangeObject:
        weights = self._model.state_dict()
        statistics = {"num_steps": self._steps}
        if (extra or {}).get("weight_type") == WeightType.WEIGHT_DIFF:
            difference = get_model_weights_diff(self._given, weights, self._steps)
            kind = WeightType.WEIGHT_DIFF
            return ExchangeObject(difference.data, metrics=self._before, weight_type=kind, statistics=statistics)
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        return ExchangeObject(arrays, weight_type=WeightType.WEIGHTS, statistics=statistics)

    def _step(self, batch: dict[str, torch.Tensor]) -> float:
        self._optimizer.zero_grad()
        loss = self._loss(self._model(batch["image"]), batch["label"])
        loss.backward()
        self._optimizer.step()
        self._steps += 1
        return loss.item()
