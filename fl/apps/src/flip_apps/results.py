"""The results of an app's run: the models as PyTorch reads them, the metrics of validation, and a seal, in one zip."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from flip.constants import PTConstants
from flip_nnunet.message import Json, Weights
from flip_nnunet.seal import Results, seal

from flip_apps.job import AppJob

BEST_FILE = f"best_{PTConstants.PTFileModelName}"
_VALIDATION = Path("cross_site_val", PTConstants.CrossValResultsJsonFilename)


@dataclass(frozen=True, slots=True)
class AppResults:
    """What a run found. `best`: None where the app did not score its rounds."""

    weights: Weights
    """By all names of each tensor, as the app's network has them; the best ones, too."""
    best: Weights | None
    validation: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    """By the site that validated, then by whose model it was, the metrics; None for one that was not finite."""
    record: Json
    """What the seal says beside the digests of the files."""


def write_results(found: AppResults, job: AppJob, results: Path) -> Results:
    """Write `results/app_RUN/`, seal it and zip it.

    The models are `{"model": state_dict}`, as NVFLARE's own; `torch.load(file, weights_only=True)` reads them.
    """
    folder = results / f"app_{job.run_id}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _save_model(folder / PTConstants.PTFileModelName, found.weights)
    if found.best is not None:
        _save_model(folder / BEST_FILE, found.best)
    _write_json(folder / _VALIDATION, found.validation)
    return seal(folder, folder, found.record)


def _save_model(file: Path, weights: Weights) -> None:
    torch.save({"model": {name: torch.from_numpy(weights[name].copy()) for name in sorted(weights)}}, file)


def _write_json(file: Path, record: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False), "utf-8")
