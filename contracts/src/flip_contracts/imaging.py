"""What `imaging` says, what it asks of a Trust, and what the Trust reports: counts and reasons, never a study's id."""

import hashlib

from pydantic import BaseModel, ConfigDict

from flip_contracts.base import Command, Event, NetName, ProjectId, ReasonCode, Released, Report, Sha256, TrustCode
from flip_contracts.topics import IMAGING, IMAGING_COMMANDS, IMAGING_REPORTS


def study_digest(project_id: ProjectId, accession_number: str) -> Sha256:
    """What a project's manifest at a Trust knows a study by: who may read the frozen cohort finds its case by it."""
    return hashlib.sha256(f"{project_id}\x1f{accession_number}".encode()).hexdigest()


class StudyCounts(BaseModel):
    """Studies of a project at one Trust by state, each as it may leave the Trust."""

    model_config = ConfigDict(frozen=True)

    queued: Released = 0
    importing: Released = 0
    imported: Released = 0
    failed: Released = 0
    capped: Released = 0


class ImagingProgressed(Event, topic=IMAGING, version=1):
    """How far a Trust has come with pulling the project's studies into its archive."""

    project_id: ProjectId
    trust: TrustCode
    counts: StudyCounts


class ImportFailed(Event, topic=IMAGING, version=1):
    """Studies could not be imported at a Trust, by class of reason. They are tried again up to the Trust's cap."""

    project_id: ProjectId
    trust: TrustCode
    reason: ReasonCode
    studies: Released


class ImagingReady(Event, topic=IMAGING, version=1):
    """Every study of the Trust's frozen cohort is imported, or rests at the cap."""

    project_id: ProjectId
    trust: TrustCode
    imported: Released
    failed: Released


class LabelsRegistered(Event, topic=IMAGING, version=1):
    """The Trust's operator brought labels; so many imported studies have one now."""

    project_id: ProjectId
    trust: TrustCode
    labelled: Released
    labels: dict[str, int]


class DatasetRegistered(Event, topic=IMAGING, version=1):
    """A ready data set at the Trust stands in for the images and labels of its PACS. Its digest names the content."""

    project_id: ProjectId
    trust: TrustCode
    cases: Released
    channels: list[str]
    labels: dict[str, int]
    dataset_sha256: Sha256


class DatasetWithdrawn(Event, topic=IMAGING, version=1):
    """The Trust's ready data set is given up; its images and labels come from the PACS again."""

    project_id: ProjectId
    trust: TrustCode


class ImagesDeleted(Event, topic=IMAGING, version=1):
    """The Trust deleted the project's images, and every net that was given a run of the project there what it had made
    of them, and all reported it."""

    project_id: ProjectId
    trust: TrustCode


class ImportStudies(Command, topic=IMAGING_COMMANDS, version=1):
    """Pull the studies of your frozen cohort of this project from your PACS into your archive, de-identified."""

    project_id: ProjectId


class DeleteImages(Command, topic=IMAGING_COMMANDS, version=1):
    """Delete the project's images, labels and prepared data, and all that nets keep of the project at the Trust."""

    project_id: ProjectId


class TrustImportProgressed(Report, topic=IMAGING_REPORTS, version=1):
    """The Trust's import of the project's studies, by state."""

    project_id: ProjectId
    counts: StudyCounts


class TrustImportFailed(Report, topic=IMAGING_REPORTS, version=1):
    """Studies failed at the Trust, by class of reason."""

    project_id: ProjectId
    reason: ReasonCode
    studies: Released


class TrustImagesReady(Report, topic=IMAGING_REPORTS, version=1):
    """The Trust's import is through."""

    project_id: ProjectId
    imported: Released
    failed: Released


class TrustRegisteredLabels(Report, topic=IMAGING_REPORTS, version=1):
    """The Trust's operator brought labels. `labels` names the structures with their value in the label map."""

    project_id: ProjectId
    labelled: Released
    labels: dict[str, int]


class TrustRegisteredDataset(Report, topic=IMAGING_REPORTS, version=1):
    """The Trust's operator registered a ready nnU-Net data set instead of the PACS's images: what its cases hold."""

    project_id: ProjectId
    cases: Released
    channels: list[str]
    labels: dict[str, int]
    dataset_sha256: Sha256


class TrustWithdrewDataset(Report, topic=IMAGING_REPORTS, version=1):
    """The Trust's operator gave the ready data set up; the PACS's images count again."""

    project_id: ProjectId


class TrustDeletedImages(Report, topic=IMAGING_REPORTS, version=1):
    """The project's images, labels and prepared data are gone from the Trust."""

    project_id: ProjectId


class TrustForgotProject(Report, topic=IMAGING_REPORTS, version=1):
    """The net keeps nothing of the project at the Trust any more: no data set, no preprocessed image, no state of a
    trainer. It takes no run of the project there again."""

    project_id: ProjectId
    net: NetName
