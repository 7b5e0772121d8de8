"""A trained nnU-Net model, read from a model folder: at a site from its own disk, at the hub from an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flip_nnunet.message import Json, Message, Weights, digest, weights_digest
from flip_nnunet.payload import Configuration, FoldId, InferencePayload
from flip_nnunet.tensors import own_tensors, ties_of

_SCALARS = [
    np.dtype,
    np.float32,
    np.float64,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    np.float64(0).__reduce__()[0],
]
"""What the numbers in nnU-Net's own log are pickled by."""


class ModelUnfit(Exception):
    """A model can't be used as asked: a stable code, and a detail that names the payload's field."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class Identity(BaseModel):
    """Which model it is, beside its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Json
    description: Json
    """Its `dataset.json`: channels, labels, file ending."""
    configuration: Configuration
    fold: FoldId
    trainer: str
    mirroring_axes: list[int] | None
    ties: dict[str, str] = Field(min_length=1)
    """For every name in the checkpoint, the name of the tensor that it is."""


@dataclass(frozen=True, slots=True)
class Model:
    """A network and all that nnU-Net needs to predict with it."""

    identity: Identity
    weights: Weights

    @classmethod
    def read(cls, folder: Path, payload: InferencePayload) -> Model:
        """The model in `TRAINER__PLANS__CONFIGURATION/` as the payload asks for it. Raises `ModelUnfit`.

        Nothing in the checkpoint is executed: what is neither a tensor nor plain data is refused.
        """
        fold = folder / f"fold_{payload.fold_id}"
        if not fold.is_dir():
            raise ModelUnfit("fold-missing", f"fold_id: the model has no fold {payload.fold_id}")
        file = fold / payload.checkpoint_name
        if not file.is_file():
            raise ModelUnfit("checkpoint-missing", f"checkpoint_name: the fold has no {payload.checkpoint_name}")
        checkpoint = _read_checkpoint(file)
        try:
            if str(checkpoint["init_args"]["fold"]) != str(payload.fold_id):
                raise ModelUnfit("fold-missing", f"fold_id: the checkpoint is not of fold {payload.fold_id}")
            tensors: Mapping[str, torch.Tensor] = checkpoint["network_weights"]
            axes = checkpoint.get("inference_allowed_mirroring_axes")
            identity = Identity(
                plan=json.loads((folder / "plans.json").read_text("utf-8")),
                description=json.loads((folder / "dataset.json").read_text("utf-8")),
                configuration=checkpoint["init_args"]["configuration"],
                fold=payload.fold_id,
                trainer=checkpoint["trainer_name"],
                mirroring_axes=None if axes is None else [int(axis) for axis in axes],
                ties=ties_of(tensors),
            )
            weights = {name: tensor.numpy() for name, tensor in own_tensors(tensors)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelUnfit("model-unreadable", f"checkpoint_path: {type(error).__name__}") from error
        return cls(identity, weights)

    def as_message(self) -> Message:
        # As text: the order of labels carries meaning, and a transport may sort the keys of an object.
        return Message({"model": self.identity.model_dump_json()}, self.weights)

    @classmethod
    def from_message(cls, message: Message) -> Model:
        """Raises `ModelUnfit` for a message that holds no model."""
        try:
            return cls(Identity.model_validate_json(message.meta["model"]), message.arrays)
        except (KeyError, ValidationError) as error:
            raise ModelUnfit("model-unreadable", f"checkpoint_path: {type(error).__name__}") from error

    def facts(self) -> Json:
        """What tells models apart."""
        identity = self.identity
        return {
            "plan": digest(identity.plan),
            "weights": weights_digest(self.weights),
            "labels": list(foreground(identity.description)),
            "channels": list(identity.description["channel_names"].values()),
            "configuration": identity.configuration,
            "fold": identity.fold,
            "trainer": identity.trainer,
        }


def foreground(description: Json) -> dict[str, int | tuple[int, ...]]:
    """The labels, or regions of several, that are segmented: all but background and what nnU-Net is told to ignore."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description["labels"].items()
        if name not in ("background", "ignore")
    }


def _read_checkpoint(file: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_SCALARS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no type of its own for what it refuses to read
        raise ModelUnfit("model-unreadable", f"checkpoint_path: {type(error).__name__}") from error
    if not isinstance(checkpoint, dict):
        raise ModelUnfit("model-unreadable", "checkpoint_path: holds no checkpoint of nnU-Net")
    return checkpoint
