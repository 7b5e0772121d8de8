"""The files of a Trust's projects, where its training workers read them.

<data>/projects/<project id>/manifest.json
                             images/<case>.nii.gz
                             labels/<case>.nii.gz
                             datasets/<digest>/manifest.json, <case>/0000.nii.gz, ..., <case>/label.nii.gz
<data>/spool/                 what is being worked on; identifying, private, emptied at each start
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import orjson
from flip_contracts.base import ProjectId, Sha256

CHANNELS = {"CT": "CT", "MR": "MRI", "PT": "PET"}
"""DICOM modality -> nnU-Net's name of the channel, which chooses its normalisation."""
MANIFEST = "manifest.json"
DATASETS = "datasets"
LABEL_NAME = "label.nii.gz"
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
class DatasetCase:
    """A case of a ready data set: pseudonym and digests of its files, an image a channel."""

    name: str
    image_sha256: tuple[str, ...]
    label_sha256: str


class ListDamaged(Exception):
    """The list of a ready data set's cases is missing, or isn't what was registered."""


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
        return self._project(project_id) / MANIFEST

    def write_manifest(self, project_id: ProjectId, labels: Mapping[str, int], cases: Sequence[Case]) -> None:
        """Replace the manifest, whole or not at all. Paths in it are relative to its folder."""
        channel = channel_of(cases)
        channels = [] if channel is None else [channel]
        self._replace_manifest(project_id, _manifest(project_id, channels, labels, [_listed(case) for case in cases]))

    def take_in(self, project_id: ProjectId, dataset_sha256: Sha256, manifest: bytes, content: Path) -> None:
        """Take in a ready data set, whole or not at all. `content`, in the spool, has a folder with each case's files.

        The project's own manifest stays as it is.
        """
        (content / MANIFEST).write_bytes(manifest)
        target = self._project(project_id) / DATASETS / dataset_sha256
        target.parent.mkdir(parents=True, exist_ok=True, mode=GROUP_READABLE)
        if target.exists():  # from an attempt that was lost
            shutil.rmtree(target)
        content.rename(target)
        target.chmod(GROUP_READABLE)

    def write_manifest_of_dataset(self, project_id: ProjectId, dataset_sha256: Sha256, list_sha256: Sha256) -> None:
        """Replace the manifest by the list of a data set's cases. Raises ListDamaged; then there is no manifest."""
        try:
            body = self.list_of_dataset(project_id, dataset_sha256, list_sha256)
        except ListDamaged:
            self.manifest(project_id).unlink(missing_ok=True)
            raise
        self._replace_manifest(project_id, body)

    def list_of_dataset(self, project_id: ProjectId, dataset_sha256: Sha256, list_sha256: Sha256) -> bytes:
        """The list of a data set's cases as it was registered. Raises ListDamaged."""
        try:
            body = (self._project(project_id) / DATASETS / dataset_sha256 / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise ListDamaged("missing") from None
        if hashlib.sha256(body).hexdigest() != list_sha256:
            raise ListDamaged("changed")
        return body

    def remove_datasets(self, project_id: ProjectId, *, but: Sha256 | None) -> None:
        """Delete every data set that was taken in for the project, but the one with this digest."""
        for folder in (self._project(project_id) / DATASETS).glob("*"):
            if folder.name != but:
                shutil.rmtree(folder)

    def _replace_manifest(self, project_id: ProjectId, body: bytes) -> None:
        target = self.manifest(project_id)
        target.parent.mkdir(parents=True, exist_ok=True, mode=GROUP_READABLE)
        draft = target.with_name(f".{MANIFEST}")
        with draft.open("wb") as file:
            file.write(body)
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


def image_name(channel: int) -> str:
    """The file of a data set's case with its image in this channel."""
    return f"{channel:04d}.nii.gz"


def manifest_of_dataset(
    project_id: ProjectId,
    dataset_sha256: Sha256,
    channels: Sequence[str],
    labels: Mapping[str, int],
    cases: Sequence[DatasetCase],
) -> bytes:
    """The list of a ready data set's cases, in the order of their names."""
    folder = f"{DATASETS}/{dataset_sha256}"
    ordered = sorted(cases, key=lambda case: case.name)
    return _manifest(project_id, channels, labels, [_listed_of_dataset(case, folder) for case in ordered])


def channel_of(cases: Sequence[Case]) -> str | None:
    """nnU-Net's name of the images' one channel: `mixed` for several modalities, None without images."""
    modalities = {case.modality for case in cases}
    if len(modalities) > 1:
        return "mixed"
    return CHANNELS[modalities.pop()] if modalities else None


def _manifest(
    project_id: ProjectId, channels: Sequence[str], labels: Mapping[str, int], cases: Sequence[Mapping[str, object]]
) -> bytes:
    body = {"project_id": str(project_id), "labels": dict(labels), "channels": list(channels), "cases": list(cases)}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _listed(case: Case) -> dict[str, object]:
    label = _file(f"labels/{case.name}.nii.gz", case.label_sha256) if case.label_sha256 else None
    image = _file(f"images/{case.name}.nii.gz", case.image_sha256)
    return {"case": case.name, "study": case.study_sha256, "images": [image], "label": label}


def _listed_of_dataset(case: DatasetCase, folder: str) -> dict[str, object]:
    images = [
        _file(f"{folder}/{case.name}/{image_name(channel)}", sha256) for channel, sha256 in enumerate(case.image_sha256)
    ]
    label = _file(f"{folder}/{case.name}/{LABEL_NAME}", case.label_sha256)
    return {"case": case.name, "study": None, "images": images, "label": label}


def _file(path: str, sha256: str) -> dict[str, str]:
    return {"path": path, "sha256": sha256}
