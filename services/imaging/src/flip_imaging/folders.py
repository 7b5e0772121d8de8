"""The files of a Trust's projects, where its training workers read them.

<data>/projects/<project id>/manifest.json
                             images/<case>.nii.gz
                             labels/<case>.nii.gz
<data>/spool/                 what is being worked on; identifying, private, emptied at each start
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import orjson
from flip_contracts.base import ProjectId

CHANNELS = {"CT": "CT", "MR": "MRI", "PT": "PET"}
"""DICOM modality -> nnU-Net's name of the channel, which chooses its normalisation."""
PRIVATE = 0o700
GROUP_READABLE = 0o750


@dataclass(frozen=True, slots=True)
class Case:
    """A case as the manifest lists it: the study by a digest of its accession number, never by the number."""

    name: str
    study_sha256: str
    modality: str
    image_sha256: str
    label_sha256: str | None


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are under the Trust's data folder."""

    data: Path

    def image(self, project_id: ProjectId, case: str) -> Path:
        """The NIfTI image of a case."""
        return self._in(project_id, "images") / f"{case}.nii.gz"

    def label(self, project_id: ProjectId, case: str) -> Path:
        """The label map of a case."""
        return self._in(project_id, "labels") / f"{case}.nii.gz"

    def manifest(self, project_id: ProjectId) -> Path:
        """The list of the project's cases."""
        return self._project(project_id) / "manifest.json"

    def write_manifest(self, project_id: ProjectId, labels: Mapping[str, int], cases: Sequence[Case]) -> None:
        """Replace the manifest, whole or not at all. Paths in it are relative to its folder."""
        body = {
            "project_id": str(project_id),
            "labels": dict(labels),
            "channel": channel_of(cases),
            "cases": [_listed(case) for case in cases],
        }
        target = self.manifest(project_id)
        target.parent.mkdir(parents=True, exist_ok=True, mode=GROUP_READABLE)
        draft = target.with_name(".manifest.json")
        with draft.open("wb") as file:
            file.write(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    def remove_project(self, project_id: ProjectId) -> None:
        """Delete every file of the project."""
        folder = self._project(project_id)
        if folder.exists():
            shutil.rmtree(folder)

    def empty_spool(self) -> None:
        """Delete what a lost process left."""
        shutil.rmtree(self._spool, ignore_errors=True)
        self._spool.mkdir(parents=True, mode=PRIVATE)

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """A private folder that is gone when the block ends, on the same file system as the projects."""
        with tempfile.TemporaryDirectory(dir=self._spool) as folder:
            yield Path(folder)

    @property
    def _spool(self) -> Path:
        return self.data / "spool"

    def _project(self, project_id: UUID) -> Path:
        return self.data / "projects" / str(project_id)

    def _in(self, project_id: UUID, name: str) -> Path:
        folder = self._project(project_id) / name
        folder.mkdir(parents=True, exist_ok=True, mode=GROUP_READABLE)
        return folder


def channel_of(cases: Sequence[Case]) -> str | None:
    """nnU-Net's name of the images' one channel: `mixed` for several modalities, None without images."""
    modalities = {case.modality for case in cases}
    if len(modalities) > 1:
        return "mixed"
    return CHANNELS[modalities.pop()] if modalities else None


def _listed(case: Case) -> dict[str, object]:
    def file(folder: str, sha256: str) -> dict[str, str]:
        return {"path": f"{folder}/{case.name}.nii.gz", "sha256": sha256}

    return {
        "case": case.name,
        "study": case.study_sha256,
        "image": file("images", case.image_sha256),
        "label": file("labels", case.label_sha256) if case.label_sha256 else None,
    }
