"""A data set in nnU-Net's raw format, as it lies at a site."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from flip_nnunet.message import Json, SiteFailed, digest

_SCHEMA_KEYS = ("channel_names", "labels", "file_ending")
_OPTIONAL_SCHEMA_KEYS = ("regions_class_order", "overwrite_image_reader_writer")


@dataclass(frozen=True, slots=True)
class Case:
    """One training case: an image file a channel, in channel order, and a label file."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True, slots=True)
class RawDataset:
    """`DatasetXYZ_name` with `dataset.json`, `imagesTr` and `labelsTr`."""

    folder: Path
    schema: Json
    """What must be equal at all sites: channels, labels, file ending and how files are read.

    Channels stand in the order of their numbers; labels in that of their values, regions as written: there the order
    says which output is which.
    """
    cases: tuple[Case, ...]

    @classmethod
    def find(cls, raw: Path, dataset_id: int) -> RawDataset:
        """Read data set `dataset_id` below `raw` (`nnUNet_raw`). Raises `SiteFailed` if it is missing or incomplete."""
        prefix = f"Dataset{dataset_id:03d}_"
        folders = sorted(folder for folder in raw.glob(f"{prefix}*") if folder.is_dir())
        if len(folders) != 1:
            raise SiteFailed("dataset-missing" if not folders else "dataset-ambiguous", f"{len(folders)} x {prefix}*")
        description = _read_description(folders[0] / "dataset.json")
        ending, channels = description["file_ending"], len(description["channel_names"])
        return cls(folders[0], _schema(description), _find_cases(folders[0], ending, channels))

    def digest(self) -> str:
        """SHA-256 over the schema and the name and content of every training file."""
        total = hashlib.sha256(digest(self.schema).encode())
        for case in self.cases:
            for file in (*case.images, case.label):
                total.update(f"{file.parent.name}/{file.name}\0{_file_digest(file)}\n".encode())
        return total.hexdigest()


def canonical_description(schema: Json, cases: int, dataset_name: str) -> Json:
    """The `dataset.json` of the federation: the common schema and the number of cases of all sites together."""
    return {**schema, "name": dataset_name, "numTraining": cases}


def _read_description(file: Path) -> Json:
    try:
        description = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SiteFailed("dataset-json-unreadable", type(error).__name__) from error
    missing = [key for key in _SCHEMA_KEYS if key not in description]
    if missing:
        raise SiteFailed("dataset-json-incomplete", f"missing: {', '.join(missing)}")
    if "dataset" in description:
        raise SiteFailed("dataset-json-unsupported", "a `dataset` table; cases must lie in imagesTr and labelsTr")
    return description


def _schema(description: Json) -> Json:
    labels: Json = description["labels"]
    if "regions_class_order" not in description:
        labels = dict(sorted(labels.items(), key=lambda label: label[1]))
    return {
        "channel_names": dict(sorted(description["channel_names"].items(), key=lambda channel: int(channel[0]))),
        "labels": labels,
        "file_ending": description["file_ending"],
        **{key: description[key] for key in _OPTIONAL_SCHEMA_KEYS if key in description},
    }


def _find_cases(folder: Path, ending: str, channels: int) -> tuple[Case, ...]:
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    images: dict[str, dict[int, Path]] = {}
    for file in (folder / "imagesTr").glob(f"*{ending}"):
        if match := pattern.fullmatch(file.name):
            images.setdefault(match[1], {})[int(match[2])] = file
    incomplete = sum(sorted(files) != list(range(channels)) for files in images.values())
    unlabelled = sum(not (folder / "labelsTr" / f"{name}{ending}").is_file() for name in images)
    if incomplete or unlabelled:
        raise SiteFailed("cases-incomplete", f"{incomplete} cases lack a channel, {unlabelled} lack a label")
    return tuple(
        Case(name, tuple(files[channel] for channel in range(channels)), folder / "labelsTr" / f"{name}{ending}")
        for name, files in sorted(images.items())
    )


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
