"""A project's data as an app reads it: a folder that the Trust, or a researcher at home, has laid out.

cohort.csv                       the frozen cohort: what the query says of each study; one column is `accession_id`
images/<accession id>/           `input_*.nii.gz`, `label_*.nii.gz`, `*.dcm`, at any depth
project.json                     at a Trust only: whose data this is (`ProjectData.of_trust`)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flip.constants import ResourceType

if TYPE_CHECKING:
    import pandas as pd

COHORT, IMAGES, PROJECT = "cohort.csv", "images", "project.json"
ACCESSION = "accession_id"

_FILES = {
    ResourceType.NIFTI: "input_*.nii.gz",
    ResourceType.SEGMENTATION: "label_*.nii.gz",
    ResourceType.DICOM: "*.dcm",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What may name a folder: an accession id, a scan, a resource."""


class QueryDiffers(ValueError):
    """The frame of another project or query was asked for than the one that was approved and frozen."""


class StudyUnknown(LookupError):
    """The accession id is none of the project's."""


class ResourceMissing(LookupError):
    """The study has no file of the kind that was asked for."""


def query_digest(query: str) -> str:
    """SHA-256 (hex) of a query's text as it was saved: what the platform knows the query by."""
    return hashlib.sha256(query.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Approved:
    """The project and the query that a Trust approved; the query's text itself stays out of files."""

    project_id: str
    query_sha256: str

    def check(self, project_id: str, query: str) -> None:
        """Raises `QueryDiffers` for any other project or query, which may be given by its digest or its text."""
        if project_id != self.project_id:
            raise QueryDiffers("project_id: is not the project that this run belongs to")
        if self.query_sha256 not in {query, query_digest(query)}:
            raise QueryDiffers("query: is not the query of which the project's cohort was frozen")


@dataclass(frozen=True, slots=True)
class ProjectData:
    """One project's cohort and images. `approved`: what may be asked for; None where nobody else's data is near."""

    cohort: Path
    """The CSV file of the cohort."""
    images: Path
    """The folder that has one folder a study."""
    resources: Path
    """The folder into which `add_resource` copies."""
    approved: Approved | None = None

    @classmethod
    def of_trust(cls, folder: Path, resources: Path) -> ProjectData:
        """The data that a Trust prepared in `folder`. Raises ValueError if its `project.json` can't be read."""
        record = json.loads((folder / PROJECT).read_bytes())
        try:
            approved = Approved(str(record["project_id"]), str(record["query_sha256"]))
        except (KeyError, TypeError):
            raise ValueError(f"{PROJECT}: must have project_id and query_sha256") from None
        return cls(folder / COHORT, folder / IMAGES, resources, approved)

    def frame(self, project_id: str, query: str) -> pd.DataFrame:
        """The cohort's frame; accession ids are text. Raises `QueryDiffers`, ValueError for a frame without them."""
        import pandas as pd  # noqa: PLC0415 - takes a second that `import flip` need not

        self._check(project_id, query)
        frame = pd.read_csv(self.cohort, dtype={ACCESSION: str})
        if ACCESSION not in frame.columns:
            raise ValueError(f"{self.cohort.name}: has no column {ACCESSION}")
        return frame

    def study(self, project_id: str, accession_id: str, kinds: Sequence[ResourceType]) -> Path:
        """The folder of a study that has files of every kind in `kinds`.

        Raises `QueryDiffers`, `StudyUnknown` or `ResourceMissing`; their texts don't repeat the accession id.
        """
        self._check(project_id, None)
        folder = self.images / _checked(accession_id, "accession_id")
        if not folder.is_dir():
            raise StudyUnknown("accession_id: the project has no images of this study")
        for kind in kinds:
            if next(folder.rglob(_FILES[kind]), None) is None:
                raise ResourceMissing(f"resource_type: the study has no {kind}")
        return folder

    def add(self, project_id: str, accession_id: str, scan_id: str, resource_id: str, files: Sequence[Path]) -> None:
        """Copy files to `<resources>/<accession id>/<scan>/<resource>/`. Raises as `study`, and FileNotFoundError."""
        self.study(project_id, accession_id, ())
        target = self.resources / accession_id / _checked(scan_id, "scan_id") / _checked(resource_id, "resource_id")
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, target / file.name)

    def _check(self, project_id: str, query: str | None) -> None:
        if self.approved is None:
            return
        if query is not None:
            self.approved.check(project_id, query)
        elif project_id != self.approved.project_id:
            raise QueryDiffers("project_id: is not the project that this run belongs to")


def _checked(name: str, field: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field}: may hold letters, digits, '_', '.' and '-' only")
    return name
