"""Validates any site's model on this site's held-out studies: an NVFLARE `Executor`."""

from __future__ import annotations

import torch
from data import dice, load_samples, split
from flip import FLIP
from models import get_model
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants


class FLIP_VALIDATOR(Executor):  # noqa: N801 - the name that the platform looks for
    """Answers with the mean Dice."""

    def __init__(
        self, validate_task_name: str = AppConstants.TASK_VALIDATION, project_id: str = "", query: str = ""
    ) -> None:
        super().__init__()
        self._task = validate_task_name
        _, self._samples = split(load_samples(FLIP(), project_id, query))
        self._model = get_model()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name != self._task:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        given = from_shareable(shareable).data
        self._model.load_state_dict({name: torch.as_tensor(array) for name, array in given.items()})
        return DXO(DataKind.METRICS, {"val_dice": dice(self._model, self._samples)}).to_shareable()
