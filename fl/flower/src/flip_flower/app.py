"""A researcher's Flower app at a site: its ClientApp, called as Flower calls it.

It runs in the run's trainer: neither the SuperNode nor its executor, which hold the Trust's key, ever load it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flip_apps.site import Place, Point, Trained
from flip_contracts.apps import LOCAL_EPOCHS, SERVER_ROUNDS, read_flower_app
from flip_nnunet.message import SiteFailed, Weights
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp

SITE_VARIABLE = "SUPERNODE_NAME"
"""Where an app finds the code of the site that it runs at."""
_ARRAYS, _CONFIG, _ROUND, _EXAMPLES = "arrays", "config", "server-round", "num-examples"
"""Names that Flower's own strategies use in their messages."""
_AT = re.compile(r"(?P<label>.+)@(?P<axis>.+)\.x_(?P<x>-?\d+(\.\d+)?)")
_HUB, _NODE = 1, 2
_FUNCTIONS = ("train.default", "evaluate.default")


class FlowerClientApp:
    """`flip_apps.site.App` of a Flower app."""

    has_local_model = False
    is_validated_each_round = True

    def __init__(self, place: Place) -> None:
        files = {name: (place.app / name).read_bytes() for name in place.job.files}
        self._described = read_flower_app(files)
        os.environ[SITE_VARIABLE] = place.site
        sys.path.insert(0, str(place.app))
        importlib.invalidate_caches()
        module, _, name = self._described.clientapp.partition(":")
        found = getattr(importlib.import_module(module), name, None)
        if not isinstance(found, ClientApp):
            raise SiteFailed("app-incomplete", f"clientapp: {self._described.clientapp} is no ClientApp")
        missing = [function for function in _FUNCTIONS if function not in found._registered_funcs]
        if missing:
            raise SiteFailed("app-incomplete", f"clientapp: has no function for {missing[0].partition('.')[0]}")
        self._app = found
        self._number = place.job.starting_round
        rounds = {SERVER_ROUNDS: place.config.global_rounds, LOCAL_EPOCHS: place.config.local_rounds}
        project = {"flip-project-id": place.job.project_id, "flip-cohort-query": place.job.query}
        configuration = self._described.run_config | rounds | project
        self._context = Context(_HUB, _NODE, {"site": place.site}, RecordDict(), configuration)

    def first_weights(self) -> Mapping[str, torch.Tensor]:
        """Those of `get_model()` of the module `models` beside the ClientApp's."""
        package, _, _ = self._described.module.rpartition(".")
        try:
            models = importlib.import_module(f"{package}.models" if package else "models")
        except ModuleNotFoundError:
            raise SiteFailed("app-incomplete", "models.py: is missing beside client_app.py") from None
        if not hasattr(models, "get_model"):
            raise SiteFailed("app-incomplete", "models.py: has no get_model()")
        return models.get_model().state_dict()

    def train(self, number: int, weights: Weights) -> Trained:
        """Send the app a message `train`."""
        self._number = number
        answer = self._send("train", weights)
        arrays = list(answer.array_records.values())
        if len(arrays) != 1:
            raise SiteFailed("app-answer-invalid", "train: must be answered with one ArrayRecord")
        metrics = _metrics(answer, "train")
        new = {name: array.numpy() for name, array in arrays[0].items()}
        return Trained(new, _examples(metrics), _points(metrics, number))

    def local_model(self) -> Weights:
        """A Flower app hands out none."""
        raise SiteFailed("operation-unknown", "a Flower app has no model of its own")

    def validate(self, owner: str, weights: Weights) -> dict[str, float]:
        """Send the app a message `evaluate` of the round that was trained last."""
        metrics = _metrics(self._send("evaluate", weights), "evaluate")
        return {point.label: point.value for point in _points(metrics, 0)}

    def close(self) -> None:
        """A Flower app has no end of its own."""

    def _send(self, kind: str, weights: Weights) -> RecordDict:
        """The app's answer to a message with weights and the round; Flower's rounds count from 1."""
        arrays = ArrayRecord({name: Array(np.asarray(array)) for name, array in weights.items()})
        told = ConfigRecord({_ROUND: self._number + 1})
        content = RecordDict({_ARRAYS: arrays, _CONFIG: told})
        answer = self._app(make_message(_metadata(kind), content), self._context)
        if not isinstance(answer, Message):
            raise SiteFailed("app-answer-invalid", f"{kind}: must be answered with a Message")
        if answer.has_error():
            raise SiteFailed("app-failed", f"{kind}: Flower's error {answer.error.code}")
        return answer.content


def _metadata(kind: str) -> Metadata:
    """What is said of a message to the app. It never travels: the run's own message has brought its content."""
    return Metadata(_NODE, "", _HUB, _NODE, "", "", time.time(), DEFAULT_TTL, kind)


def _metrics(answer: RecordDict, kind: str) -> MetricRecord:
    found = list(answer.metric_records.values())
    if len(found) != 1:
        raise SiteFailed("app-answer-invalid", f"{kind}: must be answered with one MetricRecord")
    return found[0]


def _examples(metrics: MetricRecord) -> int:
    examples: Any = metrics.get(_EXAMPLES)
    if not isinstance(examples, int | float) or not float(examples).is_integer() or examples < 1:
        raise SiteFailed("wrong-weight", f"{_EXAMPLES}: must be a whole number above 0")
    return int(examples)


def _points(metrics: MetricRecord, number: int) -> list[Point]:
    """The points in a record; a key `label@axis.x_V` says where on which axis, a plain one is at the round."""
    points: list[Point] = []
    for key, value in metrics.items():
        if key == _EXAMPLES or not isinstance(value, int | float):
            continue
        at = _AT.fullmatch(key)
        if at is None:
            points.append(Point(key, float(value), float(number)))
        else:
            points.append(Point(at["label"], float(value), float(at["x"]), at["axis"]))
    return points
