"""A researcher's NVFLARE app at a site: `trainer.py` and `validator.py`, called as NVFLARE calls them.

The classes find what an executor finds in a job of NVFLARE's: contexts, an engine, a workspace of their own, analytics
events. They run in the run's trainer and so reach neither the client nor its keys.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from flip.nvflare.events import X_LABEL, X_VALUE
from flip_apps.site import Place, Point, Trained
from flip_nnunet.message import Array, SiteFailed, Weights
from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsData, AnalyticsDataType
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

_HUB = "server"
_CLIENT_ALGO = "monai.fl.client.client_algo"
_RETURN_CODES = {code for name, code in vars(ReturnCode).items() if not name.startswith("_")}


class Workspace:
    """The folders that an app may ask for."""

    def __init__(self, app: Path, run: Path) -> None:
        self._app = str(app)
        self._run = str(run)

    def get_run_dir(self, job_id: str) -> str:
        """Where the app keeps what it needs in this run."""
        return self._run

    def get_app_dir(self, job_id: str) -> str:
        """The app's own files."""
        return self._app

    def get_app_custom_dir(self, job_id: str) -> str:
        """The app's own files."""
        return self._app


class Engine:
    """What an app's contexts know as the engine. Points of metrics that are fired gather in `points`."""

    def __init__(self, place: Place) -> None:
        self.points: list[Point] = []
        self._contexts = FLContextManager(self, place.site, place.job.run_id)
        self._workspace = Workspace(place.app, place.workspace)
        self._handlers: list[Executor] = []

    def add(self, handler: Executor) -> None:
        """Let an executor hear of events from now on."""
        self._handlers.append(handler)

    def new_context(self) -> FLContext:
        """A context as NVFLARE makes one for a task."""
        return self._contexts.new_context()

    def get_workspace(self) -> Workspace:
        """The folders of this run."""
        return self._workspace

    def get_component(self, component_id: str) -> None:
        """A job of an app has no other components."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Take a metric, or tell every executor."""
        if event_type.removeprefix("fed.") == ANALYTIC_EVENT_TYPE:
            self.points += _points(fl_ctx)
            return
        for handler in self._handlers:
            handler.handle_event(event_type, fl_ctx)


class NvflareApp:
    """`flip_apps.site.App` of an NVFLARE app, of either kind: `Executor` or MONAI FL's `ClientAlgo`."""

    has_local_model = True
    is_validated_each_round = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._engine = Engine(place)
        sys.path.insert(0, str(place.app))
        importlib.invalidate_caches()
        self._trainer = self._make("trainer", "FLIP_TRAINER")
        self._validator = self._make("validator", "FLIP_VALIDATOR")
        self._engine.fire_event(EventType.START_RUN, self._engine.new_context())

    def first_weights(self) -> Mapping[str, torch.Tensor]:
        """Those of `models.get_model()`."""
        models = self._import("models")
        if not hasattr(models, "get_model"):
            raise SiteFailed("app-incomplete", "models.py: has no get_model()")
        return models.get_model().state_dict()

    def train(self, number: int, weights: Weights) -> Trained:
        """Give the trainer its task `train`; what it returns may be weights or differences from those it was given."""
        self._engine.points.clear()
        answer = self._execute(self._trainer, AppConstants.TASK_TRAIN, weights, {AppConstants.CURRENT_ROUND: number})
        new = {name: _array(tensor) for name, tensor in _data(answer, _WEIGHTS).items()}
        if answer.data_kind == DataKind.WEIGHT_DIFF:
            new = _applied(new, weights)
        return Trained(new, _steps(answer), list(self._engine.points), self._score(answer))

    def local_model(self) -> Weights:
        """What the trainer gives for its task `submit_model`."""
        answer = self._execute(self._trainer, AppConstants.TASK_SUBMIT_MODEL, None, {})
        return {name: _array(tensor) for name, tensor in _data(answer, {DataKind.WEIGHTS}).items()}

    def validate(self, owner: str, weights: Weights) -> dict[str, float]:
        """Give the validator its task `validate`; metrics that are no numbers are left out."""
        answer = self._execute(
            self._validator, AppConstants.TASK_VALIDATION, weights, {AppConstants.MODEL_OWNER: owner}
        )
        metrics = _data(answer, {DataKind.METRICS})
        return {str(name): float(value) for name, value in metrics.items() if _is_number(value)}

    def close(self) -> None:
        """Tell the app that its run is over."""
        self._engine.fire_event(EventType.END_RUN, self._engine.new_context())

    def _make(self, module: str, name: str) -> Executor:
        kind = getattr(self._import(module), name, None)
        if not inspect.isclass(kind):
            raise SiteFailed("app-incomplete", f"{module}.py: has no class {name}")
        made = kind(**_accepted(kind, {"project_id": self._place.job.project_id, "query": self._place.job.query}))
        executor = made if isinstance(made, Executor) else _as_executor(made, f"{module}.py: {name}")
        self._engine.add(executor)
        return executor

    def _import(self, module: str) -> Any:
        if not (self._place.app / f"{module}.py").is_file():
            raise SiteFailed("app-incomplete", f"{module}.py: is missing")
        return importlib.import_module(module)

    def _execute(self, executor: Executor, task: str, weights: Weights | None, headers: Mapping[str, Any]) -> DXO:
        """Let an executor do a task as NVFLARE's client would. Raises `SiteFailed` for an answer that is none."""
        shareable = Shareable() if weights is None else DXO(DataKind.WEIGHTS, dict(weights)).to_shareable()
        context = self._engine.new_context()
        context.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
        context.set_prop(FLContextKey.APP_ROOT, str(self._place.app), private=True, sticky=False)
        rounds = {AppConstants.NUM_ROUNDS: self._place.config.global_rounds}
        for header, value in (rounds | dict(headers)).items():
            shareable.set_header(header, value)
            context.set_prop(header, value, private=True, sticky=False)
        context.set_peer_context(FLContextManager(None, _HUB, self._place.job.run_id).new_context())
        answer = executor.execute(task, shareable, context, Signal())
        if not isinstance(answer, Shareable):
            raise SiteFailed("app-answer-invalid", f"{task}: must be answered with a Shareable")
        code = answer.get_return_code()
        if code != ReturnCode.OK:
            raise SiteFailed("app-failed", f"{task}: {code if code in _RETURN_CODES else 'an unknown return code'}")
        try:
            return from_shareable(answer)
        except (ValueError, TypeError) as error:
            raise SiteFailed("app-answer-invalid", f"{task}: {type(error).__name__}, must be a DXO") from error

    def _score(self, answer: DXO) -> float | None:
        """What the trainer says of the weights that it was given: one number, or that among several which counts."""
        given = answer.get_meta_prop(MetaKey.INITIAL_METRICS)
        score = given.get(self._place.config.best_metric) if isinstance(given, dict) else given
        return float(score) if _is_number(score) else None


_WEIGHTS: frozenset[str] = frozenset({DataKind.WEIGHTS, DataKind.WEIGHT_DIFF})


def _as_executor(made: object, where: str) -> Executor:
    """A `ClientAlgo` behind an executor. MONAI is there only if the app itself has imported it."""
    algo = getattr(sys.modules.get(_CLIENT_ALGO), "ClientAlgo", None)
    if algo is None or not isinstance(made, algo):
        raise SiteFailed("app-incomplete", f"{where} is neither an Executor nor a ClientAlgo")
    from flip_flare.monai_app import AlgoExecutor  # noqa: PLC0415 - imports MONAI

    return AlgoExecutor(cast("Any", made))


def _accepted(kind: type, offered: dict[str, str]) -> dict[str, str]:
    """Those of the `offered` arguments that the class takes."""
    parameters = inspect.signature(kind).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return offered
    return {parameter.name: offered[parameter.name] for parameter in parameters if parameter.name in offered}


def _data(answer: DXO, kinds: Set[str]) -> dict[str, Any]:
    if answer.data_kind not in kinds or not isinstance(answer.data, dict):
        raise SiteFailed("app-answer-invalid", f"data_kind: must be {' or '.join(sorted(kinds))}")
    return cast("dict[str, Any]", answer.data)


def _array(tensor: Any) -> Array:
    """A tensor's values, wherever it lives."""
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def _applied(differences: Weights, sent: Weights) -> Weights:
    """The weights after an update, each in the type of the tensor that was sent.

    Raises `SiteFailed` where a difference would have to be broadcast. A name that was not sent stays as it is: the
    hub's check finds it.
    """
    new: Weights = {}
    for name, difference in differences.items():
        if name not in sent:
            new[name] = difference
            continue
        if difference.shape != sent[name].shape:
            raise SiteFailed("wrong-shape", f"{name}: {list(difference.shape)}, not {list(sent[name].shape)}")
        new[name] = np.asarray(sent[name] + difference, sent[name].dtype)
    return new


def _steps(answer: DXO) -> int:
    steps = answer.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
    if not _is_number(steps) or int(steps) != steps or steps < 1:
        raise SiteFailed("wrong-weight", "NUM_STEPS_CURRENT_ROUND: must be a whole number above 0")
    return int(steps)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _points(context: FLContext) -> list[Point]:
    """The points in an analytics event; those that are no numbers, such as texts and images, stay at the site."""
    fired = context.get_prop(FLContextKey.EVENT_DATA)
    data = AnalyticsData.from_dxo(from_shareable(fired)) if isinstance(fired, Shareable) else None
    if data is None:
        return []
    value: Any = data.value
    axis = str(data.kwargs.get(X_LABEL, "round" if data.step is None else "step"))
    x = data.kwargs.get(X_VALUE, data.step)
    place = float(context.get_prop(AppConstants.CURRENT_ROUND, 0) if x is None else x)
    match data.data_type:
        case AnalyticsDataType.SCALAR | AnalyticsDataType.METRIC:
            return [Point(data.tag, float(value), place, axis)]
        case AnalyticsDataType.SCALARS | AnalyticsDataType.METRICS:
            return [Point(f"{data.tag}/{name}", float(each), place, axis) for name, each in value.items()]
        case _:
            return []
