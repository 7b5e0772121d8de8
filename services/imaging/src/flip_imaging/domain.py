"""A study's way into the archive, and a ready data set in the place of all studies, as decisions and changes. Pure.

queued -> importing -> imported
          importing -> failed -> (when its time comes, at most `cap` times) queued
                       capped -> (by hand) queued
any of them -> deleted
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import NotFound, require
from flip_contracts.base import Event, Message, ProjectId, ReasonCode, Sha256, Topic
from pydantic import AwareDatetime

State = Literal["absent", "queued", "importing", "imported", "failed", "capped", "deleted"]
Reason = Literal[
    "not-found",
    "pacs-unreachable",
    "timed-out",
    "refused",
    "incomplete",
    "deidentification-refused",
    "archive-unreachable",
    "conversion-failed",
    "interrupted",
    "internal-error",
]
"""Why a study could not be imported, as it may be told outside the Trust."""
REASONS: tuple[Reason, ...] = get_args(Reason)
LONGEST_PAUSE = timedelta(hours=6)
NO_STUDY = UUID(int=0)
NO_PROJECT = ProjectId(NO_STUDY)

STUDY = Topic(
    "flip.imaging.study",
    key="study_id",
    owner="imaging",
    local=True,
    description="A study's import at a Trust. Ids are keyed pseudonyms.",
)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a failed study is tried again by itself, and its pause: `first`, then each time twice as long."""

    cap: int = 5
    first: timedelta = timedelta(minutes=1)

    def pause(self, failures: int) -> timedelta:
        """The wait after so many failures in a row, 6 hours at most."""
        return min(self.first * 2 ** min(failures - 1, 32), LONGEST_PAUSE)


class StudyEvent(Event):
    """What every event of a study names. `case` is its pseudonymous name in files and in the archive."""

    study_id: UUID
    project_id: ProjectId


class StudyQueued(StudyEvent, topic=STUDY, version=1):
    """The study belongs to the frozen cohort and waits for its import."""

    case: str


class ImportStarted(StudyEvent, topic=STUDY, version=1):
    """An attempt to import began; attempts count from 1 since the study was last queued by hand."""

    attempt: int


class StudyImported(StudyEvent, topic=STUDY, version=1):
    """The study is in the archive, de-identified, and its image is on disk. All UIDs are the archive's."""

    patient: str
    modality: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    image_sha256: Sha256
    instances: int
    actions: dict[str, int]
    left_out: dict[str, int]


class StudyImportFailed(StudyEvent, topic=STUDY, version=1):
    """An attempt failed; the study is tried again at `retry_at`."""

    reason: ReasonCode
    retry_at: AwareDatetime


class ReimportCapReached(StudyEvent, topic=STUDY, version=1):
    """The last attempt failed too. The study rests until the Trust's operator starts it again."""

    reason: ReasonCode


class ImportRetried(StudyEvent, topic=STUDY, version=1):
    """The Trust's operator had the study queued again; its attempts count from 0."""


class LabelRegistered(StudyEvent, topic=STUDY, version=1):
    """The study has a label map on its image's grid; `series_instance_uid` is the archived SEG's, if it came as one."""

    label_sha256: Sha256
    series_instance_uid: str | None
    labels: dict[str, int]


class StudyDeleted(StudyEvent, topic=STUDY, version=1):
    """The study is gone from the archive, and its files with it."""


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a project at this Trust."""

    study_id: UUID = NO_STUDY
    project_id: ProjectId = NO_PROJECT
    state: State = "absent"
    case: str = ""
    attempts: int = 0
    retry_at: datetime | None = None
    label_series: str | None = None


def queue(study: Study, study_id: UUID, project_id: ProjectId, case: str) -> list[Event]:
    """Queue a study of the frozen cohort (IMG-1). One that is known already stays as it is."""
    if study.state != "absent":
        return []
    return [StudyQueued(study_id=study_id, project_id=project_id, case=case)]


def begin(study: Study, now: datetime, retries: Retries) -> Event:
    """Start an attempt: of a queued study, of a failed one whose time has come, or of one whose worker was lost.

    A study that takes its worker down with it at every attempt reaches the cap like any other.
    """
    require(study.state in ("queued", "failed", "importing"), "study-not-waiting", state=study.state)
    require(study.retry_at is None or study.retry_at <= now, "study-not-due", state=study.state)
    if study.attempts > retries.cap:
        return ReimportCapReached(study_id=study.study_id, project_id=study.project_id, reason="interrupted")
    return ImportStarted(study_id=study.study_id, project_id=study.project_id, attempt=study.attempts + 1)


def fail(study: Study, reason: Reason, now: datetime, retries: Retries) -> Event:
    """Note that the attempt failed (IMG-3): try again later, or rest at the cap."""
    require(study.state == "importing", "study-not-importing", state=study.state)
    if study.attempts > retries.cap:
        return ReimportCapReached(study_id=study.study_id, project_id=study.project_id, reason=reason)
    retry_at = now + retries.pause(study.attempts)
    return StudyImportFailed(study_id=study.study_id, project_id=study.project_id, reason=reason, retry_at=retry_at)


def finish(study: Study, imported: StudyImported) -> Event:
    """Note that the attempt succeeded."""
    require(study.state == "importing", "study-not-importing", state=study.state)
    return imported


def retry(study: Study) -> Event:
    """Queue a failed or resting study again by hand (IMG-3)."""
    require(study.state in ("failed", "capped"), "study-not-failed", state=study.state)
    return ImportRetried(study_id=study.study_id, project_id=study.project_id)


def register_label(study: Study, sha256: Sha256, series_instance_uid: str | None, labels: dict[str, int]) -> Event:
    """Give an imported study its label map, or another one (IMG-6)."""
    require(study.state == "imported", "study-not-imported", state=study.state)
    return LabelRegistered(
        study_id=study.study_id,
        project_id=study.project_id,
        label_sha256=sha256,
        series_instance_uid=series_instance_uid,
        labels=labels,
    )


def delete(study: Study) -> Event:
    """Note that the study is gone (IMG-9)."""
    require(study.state not in ("absent", "deleted"), "study-not-here", state=study.state)
    return StudyDeleted(study_id=study.study_id, project_id=study.project_id)


def evolve(study: Study, event: Message) -> Study:
    """The study after an event."""
    match event:
        case StudyQueued():
            study = Study(event.study_id, event.project_id, "queued", event.case)
        case ImportStarted():
            study = replace(study, state="importing", attempts=event.attempt, retry_at=None)
        case StudyImported():
            study = replace(study, state="imported")
        case StudyImportFailed():
            study = replace(study, state="failed", retry_at=event.retry_at)
        case ReimportCapReached():
            study = replace(study, state="capped", retry_at=None)
        case ImportRetried():
            study = replace(study, state="queued", attempts=0, retry_at=None)
        case LabelRegistered():
            study = replace(study, label_series=event.series_instance_uid)
        case StudyDeleted():
            study = Study(study.study_id, study.project_id, "deleted")
        case _:
            pass
    return study


STUDIES = Aggregate(STUDY, Study(), evolve)


# --- a ready data set instead of studies --------------------------------------------------------------------------


DATASET = Topic(
    "flip.imaging.dataset",
    key="project_id",
    owner="imaging",
    local=True,
    description="The ready nnU-Net data set that a project is trained on at a Trust, instead of its PACS's studies.",
)


class DatasetAdopted(Event, topic=DATASET, version=1):
    """The project's cases are those of this data set. `manifest_sha256` is of the list of them."""

    project_id: ProjectId
    name: str
    cases: int
    channels: list[str]
    labels: dict[str, int]
    dataset_sha256: Sha256
    manifest_sha256: Sha256


class DatasetDropped(Event, topic=DATASET, version=1):
    """The project's cases are its PACS's studies again."""

    project_id: ProjectId


@dataclass(frozen=True, slots=True)
class ReadyDataset:
    """What stands in for the project's studies: the digest of the data set, None where there is none."""

    sha256: Sha256 | None = None


def adopt(dataset: ReadyDataset, adopted: DatasetAdopted, *, stands: bool, training_has_begun: bool) -> list[Event]:
    """Let a data set stand in for the project's studies, or another one (NNU-12).

    The same again changes nothing where its copy `stands`, and otherwise mends it.
    """
    same = dataset.sha256 == adopted.dataset_sha256
    if same and stands:
        return []
    require(same or not training_has_begun, "training-has-begun", "What was trained on can't be replaced.")
    return [adopted]


def drop(dataset: ReadyDataset, project_id: ProjectId, *, training_has_begun: bool) -> Event:
    """Give the data set up. Raises NotFound where there is none, Refused once something was trained on it."""
    if dataset.sha256 is None:
        raise NotFound("dataset-not-registered")
    require(not training_has_begun, "training-has-begun", "What was trained on can't be replaced.")
    return DatasetDropped(project_id=project_id)


def forget(dataset: ReadyDataset, project_id: ProjectId) -> list[Event]:
    """Note that the data set, if there is one, goes with the project (IMG-9)."""
    return [] if dataset.sha256 is None else [DatasetDropped(project_id=project_id)]


def evolve_dataset(dataset: ReadyDataset, event: Message) -> ReadyDataset:
    """What stands in for the studies after an event."""
    match event:
        case DatasetAdopted():
            return ReadyDataset(event.dataset_sha256)
        case DatasetDropped():
            return ReadyDataset()
        case _:
            return dataset


DATASETS = Aggregate(DATASET, ReadyDataset(), evolve_dataset)


@dataclass(frozen=True, slots=True)
class PullHours:
    """From which hour of the day to which the PACS may be asked, by the Trust's clock; `begin` may be the later one."""

    begin: int = 0
    end: int = 24

    def allow(self, now: datetime) -> bool:
        """Whether `now` is within the hours."""
        if self.begin < self.end:
            return self.begin <= now.hour < self.end
        return now.hour >= self.begin or now.hour < self.end
