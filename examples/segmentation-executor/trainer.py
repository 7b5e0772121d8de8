"""Trains the network on the project's studies: an NVFLARE `Executor`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from data import CONFIG, dice, load_samples, split
from flip import FLIP
from flip.nvflare.metrics import send_metrics_value
from flip.utils import get_model_weights_diff
from models import get_model
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from torch import Tensor, nn

POSITIVE_WEIGHT = 4.0
"""The structure is small: each of its voxels counts as much as four others."""


class FLIP_TRAINER(Executor):  # noqa: N801 - the name that the platform looks for
    """Trains `LOCAL_ROUNDS` epochs a round and returns the difference from the weights that it was given."""

    def __init__(
        self,
        train_task_name: str = AppConstants.TASK_TRAIN,
        submit_model_task_name: str = AppConstants.TASK_SUBMIT_MODEL,
        project_id: str = "",
        query: str = "",
    ) -> None:
        super().__init__()
        self._train_task, self._submit_task = train_task_name, submit_model_task_name
        self._flip = FLIP()
        self._training, self._validation = split(load_samples(self._flip, project_id, query))
        self._model = get_model()
        self._loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POSITIVE_WEIGHT))

    def get_num_epochs(self) -> int:
        return CONFIG["LOCAL_ROUNDS"]

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name == self._submit_task:
            weights = {name: tensor.numpy() for name, tensor in self._model.state_dict().items()}
            return DXO(DataKind.WEIGHTS, weights).to_shareable()
        if task_name != self._train_task:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        given = from_shareable(shareable).data
        self._model.load_state_dict({name: torch.as_tensor(array) for name, array in given.items()})
        before = dice(self._model, self._validation)
        steps = self._train(shareable.get_header(AppConstants.CURRENT_ROUND), fl_ctx, abort_signal)
        if abort_signal.triggered:
            return make_reply(ReturnCode.TASK_ABORTED)
        difference = get_model_weights_diff(given, self._model.state_dict(), steps)
        difference.set_meta_prop(MetaKey.INITIAL_METRICS, before)  # by this the platform finds the best global model
        return difference.to_shareable()

    def _train(self, current_round: int, fl_ctx: FLContext, abort_signal: Signal) -> int:
        """Train this round's epochs; returns the number of iterations."""
        optimizer = torch.optim.Adam(self._model.parameters(), lr=CONFIG["LEARNING_RATE"])
        steps = 0
        for epoch in range(self.get_num_epochs()):
            self._model.train()
            total = 0.0
            for index in torch.randperm(len(self._training)).tolist():
                if abort_signal.triggered:
                    return steps
                total += self._step(optimizer, self._training[index].image, self._training[index].mask)
                steps += 1
            done = current_round * self.get_num_epochs() + epoch + 1
            self._report({"TRAIN_LOSS": total / len(self._training)}, done, fl_ctx)
        self._report({"VAL_DICE": dice(self._model, self._validation)}, None, fl_ctx)
        return steps

    def _step(self, optimizer: torch.optim.Optimizer, image: Tensor, mask: Tensor) -> float:
        optimizer.zero_grad()
        loss = self._loss(self._model(image[None]), mask[None])
        loss.backward()
        optimizer.step()
        return loss.item()

    def _report(self, metrics: Mapping[str, float], epoch: int | None, fl_ctx: FLContext) -> None:
        """Show metrics at an epoch, or at the round."""
        axis = None if epoch is None else "epoch"
        for label, value in metrics.items():
            send_metrics_value(label, value, fl_ctx, flip=self._flip, x_value=epoch, x_label=axis)
