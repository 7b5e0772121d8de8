"""What the import needs of the world outside, and how each part of it can fail."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from flip_imaging.domain import Reason


class ImportProblem(Exception):
    """A study can't be imported now. The text never holds an identifier of a patient or a study."""

    reason: ClassVar[Reason]


class StudyNotFound(ImportProblem):
    """The PACS has no study, or more than one, with this accession number."""

    reason = "not-found"


class PacsUnreachable(ImportProblem):
    """The PACS can't be reached, or answers that it can't serve."""

    reason = "pacs-unreachable"


class TimedOut(ImportProblem):
    """A transfer didn't end in its time."""

    reason = "timed-out"


class RequestRefused(ImportProblem):
    """The PACS or the archive refused: wrong credentials, no right, or data that it doesn't take."""

    reason = "refused"


class StudyIncomplete(ImportProblem):
    """What arrived is not the whole study, or no DICOM."""

    reason = "incomplete"


class DeidentificationRefused(ImportProblem):
    """The study can't be made anonymous by the Trust's policy."""

    reason = "deidentification-refused"


class ArchiveUnreachable(ImportProblem):
    """The archive can't be reached, or answers that it can't serve."""

    reason = "archive-unreachable"


class ConversionFailed(ImportProblem):
    """The archived series is no volume, or the label doesn't fit it."""

    reason = "conversion-failed"


class WorkerLost(ImportProblem):
    """The process that worked on the study died."""

    reason = "interrupted"


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study as the PACS knows it; `instances` is None where the PACS doesn't say."""

    study_instance_uid: str
    instances: int | None


class PacsSource(Protocol):
    """Where the Trust's clinical images come from."""

    async def find(self, accession_number: str) -> FoundStudy:
        """The one study with this accession number.

        Raises StudyNotFound, PacsUnreachable, TimedOut or RequestRefused.
        """
        ...

    async def fetch(self, study: FoundStudy, into: Path) -> list[Path]:
        """Write each instance of the study to a DICOM file in the folder `into`.

        Raises StudyIncomplete, PacsUnreachable, TimedOut or RequestRefused; then the folder's content is of no use.
        """
        ...


class ImageStore(Protocol):
    """The Trust's research archive. It only ever holds de-identified instances; storing one twice changes nothing."""

    async def store(self, files: Sequence[Path]) -> None:
        """Store the instances in these DICOM files. Raises ArchiveUnreachable, TimedOut or RequestRefused."""
        ...

    async def delete_series(self, series_instance_uid: str) -> None:
        """Delete a series; that it isn't there is no error. Raises as `store` does."""
        ...

    async def delete_case(self, case: str) -> None:
        """Delete every study with this pseudonymous accession number, if there is one. Raises as `store` does."""
        ...
