"""The payloads a researcher writes, and how much of nnU-Net's appetite a machine allows."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from flip_contracts.nnunet import fit_trainer
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.functional_validators import AfterValidator, BeforeValidator

Configuration = Literal["2d", "3d_lowres", "3d_fullres"]
Device = Literal["cpu", "cuda", "mps"]
FoldId = Literal["all"] | Annotated[int, Field(ge=0, le=4)]
"""nnU-Net splits into five folds; `all` trains on every case."""
PLANS_NAME = "nnUNetPlans"
"""nnU-Net's name for the plans of its default planner."""


@cache
def trainer_modules() -> dict[str, str]:
    """nnU-Net's trainer classes, each with the module that defines it; read from its sources, nothing is imported.

    nnU-Net's own search imports every trainer module, and with them libraries that no trainer asked for needs.
    """
    package = find_spec("nnunetv2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nnunetv2 is not installed", name="nnunetv2")
    root = Path(package.submodule_search_locations[0])
    found: dict[str, str] = {}
    for file in sorted((root / "training" / "nnUNetTrainer").rglob("*.py")):
        module = ".".join(("nnunetv2", *file.relative_to(root).with_suffix("").parts))
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and "Trainer" in node.name:
                found[node.name] = module
    return found


def _not_a_cascade(value: object) -> object:
    if isinstance(value, str) and "cascade" in value:
        raise ValueError(
            f"{value} is a cascade and needs predictions of an earlier stage; use 2d, 3d_lowres or 3d_fullres"
        )
    return value


class TrainingPayload(BaseModel):
    """What a researcher asks of a federated nnU-Net training (NNU-6). Unknown fields are refused.

    Numbers may be written as text, as in nnU-Net's own command lines. The platform checks the same fields before it
    queues a run (`flip_contracts.scheduler.TrainingPayload`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["training"]
    num_rounds: Annotated[int, Field(ge=1, le=9999)]
    """All rounds of the training, those before `starting_fed_round` included: the LR schedule spans them."""
    dataset_id: Annotated[int, Field(ge=1, le=999)]
    """XYZ of `DatasetXYZ_name`."""
    model_configuration: Annotated[Configuration, BeforeValidator(_not_a_cascade)]
    device: Device = "cuda"
    fold_id: FoldId = "all"
    trainer_name: Annotated[str, AfterValidator(fit_trainer)] = "nnUNetTrainer"
    epochs_per_round: Annotated[int, Field(ge=1, le=1000)] = 1
    starting_fed_round: NonNegativeInt = 0
    """The round to go on with; `num_rounds` where all are trained and only the results are missing."""

    @model_validator(mode="after")
    def _starts_within_its_rounds(self) -> TrainingPayload:
        if self.starting_fed_round > self.num_rounds:
            raise ValueError(f"starting_fed_round: {self.starting_fed_round} is above num_rounds {self.num_rounds}")
        return self

    @property
    def total_epochs(self) -> int:
        return self.num_rounds * self.epochs_per_round


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("must not hold a NUL character")
    return path


def _earlier_run(path: str) -> re.Match[str] | None:
    return re.fullmatch(r"run:([A-Za-z0-9][A-Za-z0-9_-]{0,99})", path)


def _path_or_run(path: str) -> str:
    if path.startswith("run:") and not _earlier_run(path):
        raise ValueError("must be a path at the Trust, or `run:` and the id of an earlier run")
    return path


def _inside(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in folder:
        raise ValueError("must be a relative folder inside the data set, such as imagesTs")
    return folder


_DatasetKey = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}$")]
_Path = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_without_nul)]


class InferencePayload(BaseModel):
    """What a researcher asks of a federated nnU-Net prediction (NNU-7). Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["inference"]
    checkpoint_path: Annotated[_Path, AfterValidator(_path_or_run)]
    """The model folder at each Trust, which says where those may lie; or `run:ID`, the results of an earlier run."""
    fold_id: FoldId = "all"
    """Must be a fold of that model."""
    device: Device = "cuda"
    dataset_subdirs: Annotated[
        dict[_DatasetKey, Annotated[_Path, AfterValidator(_inside)]],
        Field(min_length=1, validation_alias=AliasChoices("dataset_subdirs", "apheris_dataset_subdirs")),
    ]
    """For each data set, by the XYZ of `DatasetXYZ_name`, the folder in it whose images are predicted."""
    checkpoint_name: Literal["checkpoint_final.pth", "checkpoint_best.pth"] = "checkpoint_final.pth"

    @property
    def earlier_run(self) -> str | None:
        """The id of the run whose results are used; None for a model that lies at each Trust."""
        named = _earlier_run(self.checkpoint_path)
        return named[1] if named else None


class ComputeProfile(BaseModel):
    """Caps for small machines. None leaves a choice to nnU-Net. Written into the record of each run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base_features: PositiveInt | None = None
    """Features of the first stage; each further stage doubles them up to `max_features`. Both or neither."""
    max_features: PositiveInt | None = None
    max_batch_size: PositiveInt | None = None
    iterations_per_epoch: PositiveInt | None = None
    validation_iterations: PositiveInt | None = None
    initial_lr: PositiveFloat | None = None
    threads: PositiveInt | None = None
    """Torch threads. Only 1 gives the same weights bit for bit every time."""
    augmentation_processes: NonNegativeInt | None = None
    """0 augments in the training process; only then does a seed decide every batch."""
    processes: PositiveInt = 1
    """Processes that read images for statistics and preprocessing; at most one a processor."""
    intensity_voxels: PositiveInt = 10**8
    """Foreground voxels sampled over the whole federation for the intensity statistics."""

    @model_validator(mode="after")
    def _features_belong_together(self) -> ComputeProfile:
        if (self.base_features is None) != (self.max_features is None):
            raise ValueError("base_features and max_features: give both or neither")
        return self


FULL = ComputeProfile(name="full", processes=8)
DEMO = ComputeProfile(
    name="demo",
    base_features=16,
    max_features=64,
    max_batch_size=12,
    iterations_per_epoch=60,
    validation_iterations=3,
    threads=1,
    augmentation_processes=0,
    intensity_voxels=10**6,
)
PROFILES = {profile.name: profile for profile in (FULL, DEMO)}
