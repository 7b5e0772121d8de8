"""What `files` says: the files of models, and the results of runs."""

from pydantic import BaseModel, ConfigDict, Field

from flip_contracts.apps import FileName
from flip_contracts.base import Event, ModelId, ProjectId, ReasonCode, RunId, Sha256, UserId
from flip_contracts.topics import MODEL_FILE, RESULT


class ConfigurationProblem(BaseModel):
    """What is wrong in a configuration file: the field as it is written there, and why it can't be used."""

    model_config = ConfigDict(frozen=True)

    field: str
    detail: str


class AppConfiguration(BaseModel):
    """What a start has to check of an app's configuration file: its problems, the Trusts that it gives a weight, and
    the files that a Flower app's components are in."""

    model_config = ConfigDict(frozen=True)

    problems: list[ConfigurationProblem] = Field(default_factory=list[ConfigurationProblem])
    aggregation_weights: dict[str, float] = Field(default_factory=dict[str, float])
    client_file: str | None = None
    server_file: str | None = None


class Finding(BaseModel):
    """A call in Python source that a Trust may want to look at; it refuses nothing."""

    model_config = ConfigDict(frozen=True)

    line: int
    name: str


class ModelFileUploaded(Event, topic=MODEL_FILE, version=1):
    """A file of a model came, new or in the place of an earlier one; nothing may use it before its scan."""

    model_id: ModelId
    project_id: ProjectId
    path: FileName
    digest: Sha256
    size_bytes: int
    object: str


class ModelFileAccepted(Event, topic=MODEL_FILE, version=1):
    """The file was scanned, found clean and can be used in runs. `configuration` is what it says where it configures
    the app."""

    model_id: ModelId
    project_id: ProjectId
    path: FileName
    digest: Sha256
    size_bytes: int
    engine: str
    signatures: str
    findings: list[Finding] = Field(default_factory=list[Finding])
    configuration: AppConfiguration | None = None


class ModelFileRefused(Event, topic=MODEL_FILE, version=1):
    """The file failed its scan and is deleted. `detail` says where, never what stands there."""

    model_id: ModelId
    project_id: ProjectId
    path: FileName
    digest: Sha256
    reason: ReasonCode
    detail: str = ""


class ModelFileRemoved(Event, topic=MODEL_FILE, version=1):
    """Somebody took the file out of the model. Runs that were started with it keep it."""

    model_id: ModelId
    project_id: ProjectId
    path: FileName


class ResultsPublished(Event, topic=RESULT, version=1):
    """The run's results were scanned, found clean and can be downloaded under this name."""

    run_id: RunId
    project_id: ProjectId
    name: str
    digest: Sha256
    size_bytes: int
    engine: str
    signatures: str


class ResultsRefused(Event, topic=RESULT, version=1):
    """The run's results failed their scan and are withheld."""

    run_id: RunId
    project_id: ProjectId
    reason: ReasonCode


class ResultsDownloaded(Event, topic=RESULT, version=1):
    """Somebody downloaded the run's results."""

    run_id: RunId
    project_id: ProjectId
    user_id: UserId
    digest: Sha256


class RoundDownloaded(Event, topic=RESULT, version=1):
    """Somebody downloaded the weights after a round of the run. `digest` is the checkpoint's, over its tensors."""

    run_id: RunId
    project_id: ProjectId
    user_id: UserId
    round: int
    digest: Sha256


class AttemptRounds(BaseModel):
    """Rounds of one attempt."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    rounds: list[int]


class RoundsDeleted(Event, topic=RESULT, version=1):
    """The run has ended, and the time for which its rounds are kept is over: the weights after these are deleted.

    `kept` are those that stay for good: the last one, and the best one.
    """

    run_id: RunId
    project_id: ProjectId
    deleted: list[AttemptRounds]
    kept: list[int]
