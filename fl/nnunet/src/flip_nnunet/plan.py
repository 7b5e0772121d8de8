"""nnU-Net's plan, made at every site from the federation's fingerprint, and how two plans are compared."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from numpy.typing import NDArray

from flip_nnunet.fingerprint import Fingerprint
from flip_nnunet.message import Json, SiteFailed
from flip_nnunet.payload import PLANS_NAME, ComputeProfile


def target_spacing(synopsis: Json) -> NDArray[np.float64]:
    """nnU-Net's own choice of the full resolution's spacing (mm an axis) for `spacings` and `shapes_after_crop`."""
    planner = SimpleNamespace(
        dataset_fingerprint=synopsis, overwrite_target_spacing=None, anisotropy_threshold=ANISO_THRESHOLD
    )
    return ExperimentPlanner.determine_fullres_target_spacing(planner)  # type: ignore[arg-type]


def make_plan(
    fingerprint: Fingerprint, dataset_name: str, preprocessed: Path, configuration: str, profile: ComputeProfile
) -> Json:
    """Plan `dataset_name` inside `nnunet_environment`; its raw `dataset.json` must carry the cases of all sites.

    nnU-Net caps the batch at 5 % of the data set: with each site's own case count the plans would differ.
    """
    folder = preprocessed / dataset_name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint.content), "utf-8")
    written = folder / f"{PLANS_NAME}.json"
    written.unlink(missing_ok=True)  # nnU-Net would merge an earlier plan into the new one
    with _resampled_to(fingerprint.median_new_shape):
        ExperimentPlanner(dataset_name, plans_name=PLANS_NAME).plan_experiment()
    plan = json.loads(written.read_text("utf-8"))
    if configuration not in plan["configurations"]:
        raise SiteFailed("configuration-not-planned", f"nnU-Net plans no {configuration} for images of this size")
    _cap(plan["configurations"][configuration], profile)
    return plan


@contextlib.contextmanager
def _resampled_to(shape: tuple[float, float, float]) -> Iterator[None]:
    """Let the planner see cases that all have this shape after resampling: it takes the median of them."""
    resampled = np.array(shape)
    with mock.patch.object(default_experiment_planner, "compute_new_shape", return_value=resampled):
        yield


def _cap(configuration: Json, profile: ComputeProfile) -> None:
    if profile.base_features is not None and profile.max_features is not None:
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [
            min(profile.max_features, profile.base_features * 2**stage) for stage in range(arguments["n_stages"])
        ]
    if profile.max_batch_size is not None:
        configuration["batch_size"] = min(configuration["batch_size"], profile.max_batch_size)
