"""The results of a training: a model folder that a plain nnU-Net loads, sealed and zipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from flip_nnunet.job import Job
from flip_nnunet.message import Json, Weights, digest, weights_digest
from flip_nnunet.payload import PLANS_NAME
from flip_nnunet.seal import Results, seal


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights after a round."""

    round: int
    weights: Weights


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """All that nnU-Net needs to predict."""

    plan: Json
    description: Json
    """The federation's `dataset.json`."""
    fingerprint: Json
    final: Checkpoint
    best: Checkpoint | None
    """The round that scored best; None where no round was scored."""
    ties: dict[str, str]
    """For each name in nnU-Net's checkpoint, the name in `weights`."""
    mirroring_axes: list[int] | None


def export(model: TrainedModel, job: Job, record: Json, results: Path) -> Results:
    """Write `results/DatasetXYZ_name/TRAINER__nnUNetPlans__CONFIGURATION/`, seal it and zip it.

    Unzipped into `nnUNet_results` it is what `nnUNetv2_predict` looks for. `seal.json` beside `plans.json` holds
    `record` and digests: of plan, fingerprint, weights and every other file.
    """
    payload = job.payload
    folder = results / job.dataset_name
    shutil.rmtree(folder, ignore_errors=True)
    model_folder = folder / f"{payload.trainer_name}__{PLANS_NAME}__{payload.model_configuration}"
    fold = model_folder / f"fold_{payload.fold_id}"
    fold.mkdir(parents=True)
    _write_json(model_folder / "plans.json", model.plan)
    _write_json(model_folder / "dataset.json", model.description)
    _write_json(model_folder / "dataset_fingerprint.json", model.fingerprint)
    torch.save(_checkpoint(model, model.final, job), fold / "checkpoint_final.pth")
    if model.best is not None:
        torch.save(_checkpoint(model, model.best, job), fold / "checkpoint_best.pth")
    digests = {
        "plan": digest(model.plan),
        "fingerprint": digest(model.fingerprint),
        "weights": weights_digest(model.final.weights),
    }
    return seal(folder, model_folder, {**record, "digests": digests})


def _checkpoint(model: TrainedModel, of: Checkpoint, job: Job) -> Json:
    """nnU-Net's checkpoint with what inference reads."""
    record: Json = {
        "trainer_name": job.payload.trainer_name,
        "init_args": {
            "plans": model.plan,
            "configuration": job.payload.model_configuration,
            "fold": job.payload.fold_id,
            "dataset_json": model.description,
        },
        "inference_allowed_mirroring_axes": model.mirroring_axes,
        "current_epoch": (of.round + 1) * job.payload.epochs_per_round,
    }
    # A pickle tells equal strings from identical ones; read from one text, equal records make equal bytes.
    record, ties = json.loads(json.dumps([record, dict(sorted(model.ties.items()))]))
    tensors = {name: torch.from_numpy(of.weights[name].copy()) for name in sorted(of.weights)}
    return {"network_weights": {name: tensors[owner] for name, owner in ties.items()}, **record}


def _write_json(file: Path, record: Json) -> None:
    file.write_text(json.dumps(record, indent=1), "utf-8")
