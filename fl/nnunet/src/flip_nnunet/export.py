"""The results: a model folder that a plain nnU-Net loads, and a zip of it that says what it is."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from flip_nnunet.job import Job
from flip_nnunet.message import Json, Weights, digest, weights_digest
from flip_nnunet.payload import PLANS_NAME

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment a zip can name: equal results make equal archives."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """All that nnU-Net needs to predict."""

    plan: Json
    description: Json
    """The federation's `dataset.json`."""
    fingerprint: Json
    weights: Weights
    ties: dict[str, str]
    """For each name in nnU-Net's checkpoint, the name in `weights`."""
    mirroring_axes: list[int] | None


def export(model: TrainedModel, job: Job, seal: Json, results: Path) -> Path:
    """Write `results/DatasetXYZ_name/TRAINER__nnUNetPlans__CONFIGURATION/` and zip it; returns the zip.

    Unzipped into `nnUNet_results` it is what `nnUNetv2_predict` looks for. `seal.json` beside `plans.json` holds `seal`
    and the SHA-256 of every other file.
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
    torch.save(_checkpoint(model, job), fold / "checkpoint_final.pth")
    files = {file.relative_to(results).as_posix(): file_digest(file) for file in _files(folder)}
    digests = {
        "plan": digest(model.plan),
        "fingerprint": digest(model.fingerprint),
        "weights": weights_digest(model.weights),
        "files": files,
    }
    _write_json(model_folder / "seal.json", {**seal, "digests": digests})
    return zip_folder(folder, results)


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checkpoint(model: TrainedModel, job: Job) -> Json:
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
        "current_epoch": job.payload.total_epochs,
    }
    # A pickle tells equal strings from identical ones; read from one text, equal records make equal bytes.
    record, ties = json.loads(json.dumps([record, dict(sorted(model.ties.items()))]))
    tensors = {name: torch.from_numpy(model.weights[name].copy()) for name in sorted(model.weights)}
    return {"network_weights": {name: tensors[owner] for name, owner in ties.items()}, **record}


def zip_folder(folder: Path, results: Path) -> Path:
    """Zip `folder`, which lies in `results`, beside it; equal folders make equal zips. Returns the zip."""
    archive = results / f"{folder.name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in _files(folder):
            member = zipfile.ZipInfo(file.relative_to(results).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_STORED if file.suffix in {".pth", ".pt"} else zipfile.ZIP_DEFLATED
            with file.open("rb") as source, zipped.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
    return archive


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _write_json(file: Path, record: Json) -> None:
    file.write_text(json.dumps(record, indent=1), "utf-8")
