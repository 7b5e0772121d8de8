"""The images of a data set that are to be predicted, as they lie at a site."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flip_nnunet.dataset import dataset_folder, find_images, read_schema
from flip_nnunet.files import file_digest
from flip_nnunet.message import Json, SiteFailed, digest


@dataclass(frozen=True, slots=True)
class Images:
    """One folder of images in a data set, with the labels of those cases that have one."""

    schema: Json
    """As `RawDataset.schema`."""
    cases: dict[str, tuple[Path, ...]]
    """Each case's images, a file a channel, sorted by case."""
    labels: dict[str, Path]

    @classmethod
    def find(cls, raw: Path, dataset: str, subdirectory: str) -> Images | None:
        """The images in `subdirectory` of data set `dataset` below `raw`; None if the data set isn't here.

        The labels of `imagesXY` lie in `labelsXY` beside it. Raises `SiteFailed` for a folder that isn't there, and if
        the folder or any file in use is a link that leads out of the data set.
        """
        root = dataset_folder(raw, int(dataset))
        if root is None:
            return None
        folder = root / subdirectory
        _check_inside(root, folder, dataset)
        if not folder.is_dir():
            raise SiteFailed("folder-missing", f"dataset_subdirs.{dataset}: the data set has no such folder")
        schema = read_schema(root)
        cases = find_images(folder, schema)
        labels = _find_labels(folder, list(cases), schema["file_ending"])
        for file in (*(image for images in cases.values() for image in images), *labels.values()):
            _check_inside(root, file, dataset)
        return cls(schema, cases, labels)

    def digest(self) -> str:
        """SHA-256 over the schema and the name and content of every image."""
        total = hashlib.sha256(digest(self.schema).encode())
        for images in self.cases.values():
            for image in images:
                total.update(f"{image.name}\0{file_digest(image)}\n".encode())
        return total.hexdigest()


def _find_labels(images: Path, cases: list[str], ending: str) -> dict[str, Path]:
    if not images.name.startswith("images"):
        return {}
    folder = images.with_name("labels" + images.name.removeprefix("images"))
    files = {case: folder / f"{case}{ending}" for case in cases}
    return {case: file for case, file in files.items() if file.is_file()}


def _check_inside(root: Path, path: Path, dataset: str) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise SiteFailed("path-leads-out", f"dataset_subdirs.{dataset}: leads out of the data set")
