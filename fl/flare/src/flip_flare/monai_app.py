"""MONAI FL's `ClientAlgo` behind NVFLARE's `Executor`. Imported only for apps that use MONAI themselves."""

from __future__ import annotations

from typing import Any

from monai.fl.client.client_algo import ClientAlgo
from monai.fl.utils.constants import WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

_KINDS: dict[object, str] = {WeightType.WEIGHTS: DataKind.WEIGHTS, WeightType.WEIGHT_DIFF: DataKind.WEIGHT_DIFF}
_STEPS = "num_steps"
"""Where an algorithm's statistics have its iterations."""


class AlgoExecutor(Executor):
    """Answers `train`, `submit_model` and `validate` by an algorithm, which is initialised with the first task."""

    def __init__(self, algo: ClientAlgo) -> None:
        super().__init__()
        self._algo = algo
        self._initialised = False

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if not self._initialised:
            self._algo.initialize(extra={"fl_ctx": fl_ctx})
            self._initialised = True
        extra: dict[str, Any] = {"fl_ctx": fl_ctx, "abort_signal": abort_signal}
        match task_name:
            case AppConstants.TASK_TRAIN:
                current_round = shareable.get_header(AppConstants.CURRENT_ROUND)
                self._algo.train(_given(shareable), extra | {"current_round": current_round})
                return self._weights(extra | {"weight_type": WeightType.WEIGHT_DIFF})
            case AppConstants.TASK_SUBMIT_MODEL:
                return self._weights(extra | {"weight_type": WeightType.WEIGHTS})
            case AppConstants.TASK_VALIDATION:
                found = self._algo.evaluate(_given(shareable), extra)
                return DXO(DataKind.METRICS, dict(found.metrics or {})).to_shareable()
            case _:
                return make_reply(ReturnCode.TASK_UNKNOWN)

    def _weights(self, extra: dict[str, Any]) -> Shareable:
        given = self._algo.get_weights(extra)
        kind = _KINDS.get(given.weight_type)
        if kind is None or given.weights is None:
            return make_reply(ReturnCode.EMPTY_RESULT)
        steps = (given.statistics or {}).get(_STEPS, 1)
        meta: dict[str, Any] = {MetaKey.NUM_STEPS_CURRENT_ROUND: steps}
        if given.metrics:
            meta[MetaKey.INITIAL_METRICS] = dict(given.metrics)
        return DXO(kind, dict(given.weights), meta).to_shareable()


def _given(shareable: Shareable) -> ExchangeObject:
    return ExchangeObject(weights=from_shareable(shareable).data, weight_type=WeightType.WEIGHTS)
