"""What `scheduler` says: runs, from the queue to their end."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field

from flip_contracts.apps import FileName, Rounds
from flip_contracts.base import Event, ModelId, NetName, ProjectId, ReasonCode, RunId, Sha256, TrustCode
from flip_contracts.nnunet import fit_trainer
from flip_contracts.projects import Framework, Job
from flip_contracts.topics import NET_SERVICE, RUN, SHARE


class TrainingPayload(BaseModel):
    """What nnU-Net is asked to train (NNU-6). No other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["training"]
    num_rounds: Annotated[int, Field(ge=1, le=9999)]
    dataset_id: Annotated[int, Field(ge=1, le=999)]
    model_configuration: Literal["2d", "3d_lowres", "3d_fullres"]
    device: Literal["cpu", "cuda", "mps"] = "cuda"
    fold_id: Literal["all"] | Annotated[int, Field(ge=0, le=4)] = "all"
    trainer_name: Annotated[str, AfterValidator(fit_trainer)] = "nnUNetTrainer"
    epochs_per_round: Annotated[int, Field(ge=1, le=1000)] = 1
    starting_fed_round: Annotated[int, Field(ge=0)] = 0


class AppPayload(BaseModel):
    """What a researcher's own app is started with. All else stands in its configuration. No other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["app"]
    local_rounds: Rounds | None = None
    """Goes before what the app's configuration says."""


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
    """What nnU-Net is asked to predict (NNU-7). No other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["inference"]
    checkpoint_path: Annotated[_Path, AfterValidator(_path_or_run)]
    fold_id: Literal["all"] | Annotated[int, Field(ge=0, le=4)] = "all"
    device: Literal["cpu", "cuda", "mps"] = "cuda"
    dataset_subdirs: Annotated[
        dict[_DatasetKey, Annotated[_Path, AfterValidator(_inside)]],
        Field(min_length=1, validation_alias=AliasChoices("dataset_subdirs", "apheris_dataset_subdirs")),
    ]
    checkpoint_name: Literal["checkpoint_final.pth", "checkpoint_best.pth"] = "checkpoint_final.pth"

    @property
    def earlier_run(self) -> str | None:
        """The id of the run whose results are used; None for a model that lies at each Trust."""
        named = _earlier_run(self.checkpoint_path)
        return named[1] if named else None


class EarlierResults(BaseModel):
    """The results of a finished run whose model a prediction uses, by the digest of their zip."""

    model_config = ConfigDict(frozen=True)

    run_id: RunId
    digest: Sha256


class Resources(BaseModel):
    """What a run asks of each Trust that takes part, or what a net has for it at one. Memory in MiB; of a GPU, each."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_memory_mib: Annotated[int, Field(ge=0)] = 0
    memory_mib: Annotated[int, Field(ge=0)] = 0


AppFiles = dict[FileName, Sha256]
"""Every file of a researcher's app, by its path, with its digest. Empty where the platform's own code trains."""
AggregationWeights = dict[TrustCode, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""Factors on a Trust's number of cases when models are averaged: 1 for a Trust not named, with 0 it does not count.

A start refuses those that `flip_contracts.apps.weight_problem` objects to."""


class BestRound(BaseModel):
    """The global weights that scored best so far, as `flip_nnunet.standing` judges rounds."""

    model_config = ConfigDict(frozen=True)

    round: int
    object: str
    digest: Sha256
    score: float


class Checkpoint(BaseModel):
    """The global weights after a round, as kept in the object store, and how the run stands after it.

    `digest` is over the tensors (name, type, shape, bytes), as `flip_nnunet.message.weights_digest` makes it.
    """

    model_config = ConfigDict(frozen=True)

    round: int
    object: str
    digest: Sha256
    score: float | None = None
    best: BestRound | None = None


class Continued(BaseModel):
    """An earlier run that another one goes on from, and the weights of it with which that one begins."""

    model_config = ConfigDict(frozen=True)

    run_id: RunId
    checkpoint: Checkpoint


class RunQueued(Event, topic=RUN, version=1):
    """A researcher initiated training; the run waits for a net.

    At least `minimum_trusts` of `trusts` have to take part; None means all. `virtual_time` is that of the queue when
    the run came: see `flip_scheduler.fairness`. `earlier` is what a prediction takes its model from, if not from a
    path at each Trust, and `continues` what a training goes on from that doesn't begin anew. A researcher's app runs
    with these very `files`, on the cohort of the query of `query_digest`.
    """

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    framework: Framework
    job: Job
    trusts: frozenset[TrustCode]
    payload: dict[str, Any]
    minimum_trusts: int | None = None
    resources: Resources = Resources()
    virtual_time: int = 0
    aggregation_weights: AggregationWeights = Field(default_factory=dict[TrustCode, float])
    earlier: EarlierResults | None = None
    files: AppFiles = Field(default_factory=dict[FileName, Sha256])
    query_digest: Sha256 | None = None
    continues: Continued | None = None


class RunPrioritised(Event, topic=RUN, version=1):
    """An admin gave the run another priority, with the reason: from 0, the last, to 9, the first."""

    run_id: RunId
    project_id: ProjectId
    priority: int
    reason: str


class RunAssigned(Event, topic=RUN, version=1):
    """The run was given to a net. Reports of an older attempt or a smaller fencing number are refused from here on.

    `trusts` are those that take part in this attempt, `minimum_trusts` as many as have to (None means all of them);
    `aggregation_weights` names none but them.
    `virtual_start` and `virtual_finish` are what the project is charged: see `flip_scheduler.fairness`.
    """

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    net: NetName
    attempt: int
    fencing: int
    framework: Framework
    job: Job
    trusts: frozenset[TrustCode]
    payload: dict[str, Any]
    checkpoint: Checkpoint | None = None
    minimum_trusts: int | None = None
    virtual_start: int = 0
    virtual_finish: int = 0
    aggregation_weights: AggregationWeights = Field(default_factory=dict[TrustCode, float])
    earlier: EarlierResults | None = None
    files: AppFiles = Field(default_factory=dict[FileName, Sha256])
    query_digest: Sha256 | None = None
    continues: Continued | None = None

    @property
    def has_own_round(self) -> bool:
        """Whether a round of this very run is complete, so that its plan is made; one of what it continues isn't."""
        return self.checkpoint is not None and (self.continues is None or self.checkpoint != self.continues.checkpoint)


class RunRequeued(Event, topic=RUN, version=1):
    """The attempt ended without a result; the run waits for a net again and goes on from its last completed round.

    It is given none before `rests_until`, where that is said.
    """

    run_id: RunId
    project_id: ProjectId
    attempt: int
    reason: ReasonCode
    rests_until: AwareDatetime | None = None


class RunStopping(Event, topic=RUN, version=1):
    """Somebody stopped the run; its net is told to end it."""

    run_id: RunId
    project_id: ProjectId
    attempt: int
    net: NetName | None


class RunStopped(Event, topic=RUN, version=1):
    """The run has ended because it was stopped."""

    run_id: RunId
    project_id: ProjectId


class RunFinished(Event, topic=RUN, version=1):
    """The run is complete and its results can be downloaded."""

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    results: Sha256


class RunFailed(Event, topic=RUN, version=1):
    """The run ended without a result and is not tried again."""

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    reason: ReasonCode
    detail: str = ""


class NetLost(Event, topic=RUN, version=1):
    """The net that held the run let its lease run out."""

    run_id: RunId
    project_id: ProjectId
    net: NetName
    attempt: int


class ProjectWeighted(Event, topic=SHARE, version=1):
    """An admin gave the project a weight, with the reason: it gets that many turns where one of weight 1 gets one."""

    project_id: ProjectId
    weight: int
    reason: str


class NetDraining(Event, topic=NET_SERVICE, version=1):
    """An admin drains the net, with the reason: it ends what it holds and is given no further run."""

    net: NetName
    reason: str


class NetUndrained(Event, topic=NET_SERVICE, version=1):
    """An admin lets the net take runs again, with the reason."""

    net: NetName
    reason: str


class NetRetired(Event, topic=NET_SERVICE, version=1):
    """An admin struck the net off, with the reason: nothing that it had heard of counts, until it says `NetFree`."""

    net: NetName
    reason: str
