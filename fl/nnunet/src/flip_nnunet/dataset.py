"""A data set in nnU-Net's raw format, as it lies at a site."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from flip_nnunet.files import file_digest
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
        folder = dataset_folder(raw, dataset_id)
        if folder is None:
            raise SiteFailed("dataset-missing", f"there is no {_prefix(dataset_id)}*")
        schema = read_schema(folder)
        return cls(folder, schema, _find_cases(folder, schema))

    def digest(self) -> str:
        """SHA-256 over the schema and the name and content of every training file."""
        total = hashlib.sha256(digest(self.schema).encode())
        for case in self.cases:
            for file in (*case.images, case.label):
                total.update(f"{file.parent.name}/{file.name}\0{file_digest(file)}\n".encode())
        return total.hexdigest()


def dataset_folder(raw: Path, dataset_id: int) -> Path | None:
    """The folder of data set `dataset_id` below `raw`, if it is there. Raises `SiteFailed` if there are several."""
    prefix = _prefix(dataset_id)
    folders = sorted(folder for folder in raw.glob(f"{prefix}*") if folder.is_dir())
    if len(folders) > 1:
        raise SiteFailed("dataset-ambiguous", f"{len(folders)} x {prefix}*")
    return folders[0] if folders else None


def read_schema(folder: Path) -> Json:
    """What `dataset.json` says of a data set's files (see `RawDataset.schema`). Raises `SiteFailed`."""
    return schema_of(_read_description(folder / "dataset.json"))


def find_images(folder: Path, schema: Json) -> dict[str, tuple[Path, ...]]:
    """The images in a folder by case, sorted: a file a channel, in channel order. Raises `SiteFailed`."""
    ending, channels = schema["file_ending"], len(schema["channel_names"])
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    images: dict[str, dict[int, Path]] = {}
    for file in folder.glob(f"*{ending}"):
        if match := pattern.fullmatch(file.name):
            images.setdefault(match[1], {})[int(match[2])] = file
    incomplete = sum(sorted(files) != list(range(channels)) for files in images.values())
    if incomplete:
        raise SiteFailed("cases-incomplete", f"{incomplete} cases lack a channel")
    return {name: tuple(files[channel] for channel in range(channels)) for name, files in sorted(images.items())}


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


def schema_of(description: Json) -> Json:
    """The parts of a `dataset.json` that say how its files are read, in one order (see `RawDataset.schema`)."""
    labels: Json = description["labels"]
    if "regions_class_order" not in description:
        labels = dict(sorted(labels.items(), key=lambda label: label[1]))
    return {
        "channel_names": dict(sorted(description["channel_names"].items(), key=lambda channel: int(channel[0]))),
        "labels": labels,
        "file_ending": description["file_ending"],
        **{key: description[key] for key in _OPTIONAL_SCHEMA_KEYS if key in description},
    }


def _find_cases(folder: Path, schema: Json) -> tuple[Case, ...]:
    labels, ending = folder / "labelsTr", schema["file_ending"]
    cases = tuple(
        Case(name, images, labels / f"{name}{ending}")
        for name, images in find_images(folder / "imagesTr", schema).items()
    )
    unlabelled = sum(not case.label.is_file() for case in cases)
    if unlabelled:
        raise SiteFailed("cases-incomplete", f"{unlabelled} cases lack a label")
    return cases


def _prefix(dataset_id: int) -> str:
    return f"Dataset{dataset_id:03d}_"
