"""A site's side of the federated training of an app. It knows no framework: an `App` hides the one it is written for.

This is the one place where a researcher's code runs at a Trust: in the process of the run's trainer, which holds no key
of the net.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from flip import ProjectData, QueryDiffers
from flip.app import DATA_VARIABLE, LOCAL_DEV, RESOURCES_VARIABLE
from flip.data import ACCESSION
from flip_contracts.apps import AppConfig, AppConfigInvalid
from flip_nnunet.message import Json, Message, SiteFailed, SiteFailure, Weights
from flip_nnunet.operations import Operations
from flip_nnunet.software import versions

from flip_apps.files import FilesDiffer, check_files, configuration, from_arrays, install
from flip_apps.job import AppJob
from flip_apps.ties import by_first_names, untied, with_all_names

_LOG = logging.getLogger(__name__)

NUMBERS = "biuf"
"""The kinds of numpy's types that travel, on every framework."""
DATA = "app_data"
"""Where the Trust's worker prepares a project's data below a run's folder (`flip.data`)."""
PREPARED = "prepared.json"
"""What it says beside them of what it prepared: how many cases, and their digest."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a metric. `axis` names what `x` counts."""

    label: str
    value: float
    x: float
    axis: str = "round"


@dataclass(frozen=True, slots=True)
class Trained:
    """What an app made of a round."""

    weights: Weights
    """The new weights, by the names of those that were sent."""
    steps: int
    """Its weight in the mean."""
    points: list[Point]
    score: float | None = None
    """How good the app finds the weights that it was sent; more is better."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an app is told of the site that it runs at."""

    site: str
    app: Path
    """Its own files."""
    workspace: Path
    """A folder of the run's for what it keeps."""
    job: AppJob
    config: AppConfig
    """The app's configuration, with what the run was started with in its place."""


class App(Protocol):
    """An app of one framework. What its code raises comes through as it is."""

    has_local_model: bool
    """Whether it can hand out the model that it trained itself."""
    is_validated_each_round: bool
    """Whether its framework validates the global model after every round, and not only the last."""

    def first_weights(self) -> Mapping[str, torch.Tensor]:
        """The network's `state_dict` before its first round."""
        ...

    def train(self, number: int, weights: Weights) -> Trained:
        """Train round `number` from these weights."""
        ...

    def local_model(self) -> Weights:
        """The model as this site's last training left it."""
        ...

    def validate(self, owner: str, weights: Weights) -> dict[str, float]:
        """Metrics of a model on this site's data, finite or not; `owner` says whose it is."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


Load = Callable[[Place], App]
"""Imports an app's code. Raises `SiteFailed` if it lacks something, or whatever the code raises."""


class AppWorker(Operations):
    """One site in one run of an app; stands where `flip_nnunet.worker.Worker` does for nnU-Net.

    data: the run's folder, with `app_data/` in it; only read.
    work: the site's folder for `runs/<run id>/`.
    minimum_cases: the site's disclosure threshold: with fewer studies it takes no part.
    boxed: whether walls of its own keep this process from the site's kit and from other projects' data.
    """

    def __init__(
        self, site: str, data: Path, work: Path, job: AppJob, minimum_cases: int, load: Load, *, boxed: bool
    ) -> None:
        super().__init__(
            {
                "install": self._install,
                "initialise": self._initialise,
                "train_round": self._train_round,
                "submit_model": self._submit_model,
                "validate": self._validate,
                "stop": self._stop,
            },
            work / "runs" / job.run_id,
        )
        self.site = site
        self.data = data
        self.work = work
        self.job = job
        self.minimum_cases = minimum_cases
        self.load = load
        self.boxed = boxed
        self.app: App | None = None
        self.has_trained = False

    def handle(self, operation: str, message: Message) -> Message:
        """As any site does; what an app gives that could not travel is a failure: sending it would end the trainer."""
        answer = super().handle(operation, message)
        unfit = _unfit(answer)
        return answer if unfit is None else SiteFailure("app-answer-invalid", f"{operation}: {unfit}").as_message()

    def unexpected(self, error: Exception) -> SiteFailure:
        """What the hub hears of an error in the app's code: its type and the place, as its text may tell of data."""
        return SiteFailure("app-failed", f"{type(error).__name__}{self._place_of(error)}; the site's log has more")

    def _install(self, message: Message) -> Message:
        """Take the app's files (arrays) and load them. -> meta: what `answers.Installed` reads."""
        if not self.boxed:
            raise SiteFailed(
                "app-not-boxed", "the site runs an app only in a box of its own, and its workers make none"
            )
        self._check_data()
        files = from_arrays(message.arrays)
        try:
            check_files(files, self.job)
            config = configuration(self.job, files)
        except (FilesDiffer, AppConfigInvalid) as refused:
            raise SiteFailed("app-refused", str(refused)) from None
        install(files, self.job, config, self._folder("app"))
        workspace = self._folder("workspace")
        workspace.mkdir(parents=True, exist_ok=True)
        self._tell_flip()
        self._seed(0, "init")
        _LOG.info("the app of run %s has the digest %s", self.job.run_id, self.job.app_digest)
        self.app = self.load(Place(self.site, self._folder("app"), workspace, self.job, config))
        offers = {"local_model": self.app.has_local_model, "each_round": self.app.is_validated_each_round}
        return Message({"versions": versions()} | self._prepared() | offers)

    def _initialise(self, _: Message) -> Message:
        """-> arrays: the network's first weights, each tensor once; meta ties: its other names."""
        self._seed(0, "init")
        weights, ties = untied(self._loaded.first_weights())
        return Message({"ties": ties}, weights)

    def _train_round(self, message: Message) -> Message:
        """Train meta round from the arrays, with their other names (meta ties).

        -> arrays: new weights; meta: a `Contribution`, points and score.
        """
        number, started = int(message.meta["round"]), time.monotonic()
        self._seed(number, "train")
        trained = self._loaded.train(number, _whole(message))
        state, self.has_trained = "memory" if self.has_trained else "none", True
        meta = {
            "round": number,
            "plan": self.job.app_digest,
            "cases": trained.steps,
            "metrics": {},
            "state": state,
            "seconds": round(time.monotonic() - started, 3),
            "points": [asdict(point) for point in trained.points if _is_finite(point)],
            "score": None if trained.score is None else _finite("score", trained.score),
        }
        return Message(meta, by_first_names(trained.weights, message.meta["ties"]))

    def _submit_model(self, message: Message) -> Message:
        """-> arrays: the model that this site trained, each tensor once (meta ties)."""
        return Message(arrays=by_first_names(self._loaded.local_model(), message.meta["ties"]))

    def _validate(self, message: Message) -> Message:
        """Validate the model in the arrays, of meta owner. -> meta metrics, None for one that is not finite."""
        metrics = self._loaded.validate(str(message.meta["owner"]), _whole(message))
        return Message({"metrics": {name: _finite(name, value) for name, value in metrics.items()}})

    def _stop(self, _: Message) -> Message:
        app, self.app = self.app, None
        if app is not None:
            app.close()
        return Message()

    @property
    def _loaded(self) -> App:
        if self.app is None:
            raise SiteFailed("operation-out-of-order", "the app is not installed")
        return self.app

    def _check_data(self) -> None:
        """Whether the Trust's worker prepared this run for an app, and for enough studies."""
        if not (self.data / DATA).is_dir():
            raise SiteFailed("run-not-prepared", "the Trust has not prepared this run for an app")
        project = ProjectData.of_trust(self.data / DATA, self._folder("resources"))
        try:
            studies = set(project.frame(self.job.project_id, self.job.query)[ACCESSION])
        except QueryDiffers as differs:
            raise SiteFailed("query-differs", str(differs)) from None
        if len(studies) < self.minimum_cases:
            raise SiteFailed("too-few-cases", f"the site takes part with {self.minimum_cases} studies or more")

    def _prepared(self) -> Json:
        """The data as the Trust's worker prepared them."""
        try:
            record = json.loads((self.data / PREPARED).read_bytes())
            return {"cases": record["cases"], "data": record["digest"]}
        except (OSError, ValueError, KeyError) as error:
            raise SiteFailed("run-not-prepared", f"{PREPARED} has no cases and digest") from error

    def _tell_flip(self) -> None:
        """Tell `flip`, which the app's code asks, where this run's data is."""
        os.environ.pop(LOCAL_DEV, None)
        os.environ[DATA_VARIABLE] = str(self.data / DATA)
        os.environ[RESOURCES_VARIABLE] = str(self._folder("resources"))

    def _folder(self, name: str) -> Path:
        return self.work / "runs" / self.job.run_id / name

    def _seed(self, number: int, purpose: str) -> None:
        """Seed the generators that apps draw from: a round then draws the same numbers in every attempt."""
        text = f"{self.job.seed}|{self.site}|{number}|{purpose}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _place_of(self, error: Exception) -> str:
        """The last line of the app's own files that an error came through."""
        folder = self._folder("app")
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if Path(frame.filename).is_relative_to(folder):
                return f" at {Path(frame.filename).relative_to(folder)}:{frame.lineno}"
        return ""


def _whole(message: Message) -> Weights:
    """The weights in a message as the app's network has them."""
    return with_all_names(message.arrays, message.meta["ties"])


def _finite(name: str, value: float) -> float | None:
    """A number as JSON has it, None for NaN and infinity: a Dice where nothing is to be found is often none."""
    if math.isfinite(value):
        return value
    _LOG.warning("the metric %s is %s", name, value)
    return None


def _unfit(answer: Message) -> str | None:
    """Why an answer can't travel; None if it can. Names are the app's and are not repeated."""
    try:
        json.dumps(answer.meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"what it says is not JSON ({type(error).__name__})"
    for name, array in answer.arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS:
            return "a tensor is no array of numbers"
    return None


def _is_finite(point: Point) -> bool:
    """Whether a point can be shown; one that cannot is left out, as an app's loss may well become NaN."""
    if math.isfinite(point.value) and math.isfinite(point.x):
        return True
    _LOG.warning("the metric %s is %s at %s", point.label, point.value, point.x)
    return False
