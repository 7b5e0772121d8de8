"""What the tests share: small studies with everything planted in them that hospitals leave in DICOM, and a small ready
data set."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from flip_local.data.dicom import label_segmentation, mr_series, planted_values
from flip_local.data.images import Volume
from flip_local.data.people import Patient, patients
from pydicom import Dataset

from flip_imaging.convert import Voxels

SHAPE = (14, 12, 10)


@dataclass(frozen=True, slots=True)
class Scan:
    """One patient's MR series and SEG as their hospital has them, with the voxels that they were made from."""

    patient: Patient
    volume: Volume
    series: list[Dataset]
    segmentation: Dataset

    @property
    def planted(self) -> set[str]:
        """What must never leave the hospital's systems, dates included."""
        return {*planted_values(self.patient), f"{self.patient.birth_date:%Y%m%d}", f"{self.patient.scanned_at:%Y%m%d}"}

    def write(self, folder: Path) -> list[Path]:
        """Write the series as DICOM files."""
        files = [folder / f"{number:03d}.dcm" for number in range(len(self.series))]
        for image, file in zip(self.series, files, strict=True):
            image.save_as(file, enforce_file_format=True)
        return files

    def write_segmentation(self, file: Path) -> Path:
        """Write the SEG as a DICOM file."""
        self.segmentation.save_as(file, enforce_file_format=True)
        return file


def make_scan(number: int, mark: str = "") -> Scan:
    """The scan of the patient with this number: voxels that differ from patient to patient.

    `mark` makes it another study: with accession number, patient id and UIDs of its own.
    """
    patient = patients("KCH")[number]
    patient = replace(
        patient, accession=f"{patient.accession}{mark}", hospital_number=f"{patient.hospital_number}{mark}"
    )
    random = np.random.default_rng(number)
    image = random.integers(0, 4096, SHAPE, dtype=np.uint16)
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 3:8, 2:6], label[6:9, 3:8, 3:7], label[10:13, 3:8, 4:8] = 1, 2, 3
    affine = np.array([[2.0, 0, 0, -33.25 + number], [0, 1.5, 0, -17.5], [0, 0, 3.0, -41.0 - number], [0, 0, 0, 1]])
    edition = f"imaging-tests{mark}"
    volume = Volume(image, label, affine)
    series = mr_series(patient, volume, edition)
    return Scan(patient, volume, series, label_segmentation(patient, series, volume, edition))


@dataclass(frozen=True, slots=True)
class ReadyDataset:
    """A data set in nnU-Net's raw format: two channels, two structures, cases named after patients."""

    folder: Path
    names: tuple[str, ...]
    ending: str = ".nii.gz"

    def image(self, name: str, channel: int) -> Path:
        """A case's image in a channel."""
        return self.folder / "imagesTr" / f"{name}_{channel:04d}{self.ending}"

    def label(self, name: str) -> Path:
        """A case's label map."""
        return self.folder / "labelsTr" / f"{name}{self.ending}"

    def describe(self, **changes: Any) -> None:
        """Write `dataset.json`; a change to None leaves the key out."""
        said = {
            "channel_names": {"0": "T1", "1": "FLAIR"},
            "labels": {"background": 0, "core": 1, "oedema": 2},
            "numTraining": len(self.names),
            "file_ending": self.ending,
            "description": "left out",
        } | changes
        kept = {key: value for key, value in said.items() if value is not None}
        (self.folder / "dataset.json").write_text(json.dumps(kept))


def voxels_of(number: int, kind: int) -> Voxels:
    """A case's voxels: of channel 0 or 1 (the second has fractions), or its label map (2). Odd cases have no oedema."""
    random = np.random.default_rng([number, kind])
    if kind == 2:
        label = np.zeros(SHAPE, np.uint8)
        label[2:5, 3:8, 2:6], label[6:9, 3:8, 3:7] = 1, 0 if number % 2 else 2
        return label
    values = random.integers(-1000, 4096, SHAPE)
    return values.astype(np.int16) if kind == 0 else values.astype(np.float32) + np.float32(0.25)


def make_dataset(folder: Path, cases: int = 3) -> ReadyDataset:
    """A ready data set in this folder, as NIfTI without free text."""
    dataset = ReadyDataset(folder, tuple(f"SMITH_JOHN_{number:03d}" for number in range(cases)))
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    dataset.describe()
    for number, name in enumerate(dataset.names):
        affine = np.array([[2.0, 0, 0, -33.25 + number], [0, 1.5, 0, -17.5], [0, 0, 3.0, -41.0], [0, 0, 0, 1]])
        for kind, file in enumerate((dataset.image(name, 0), dataset.image(name, 1), dataset.label(name))):
            nib.save(nib.Nifti1Image(voxels_of(number, kind), affine), file)
    return dataset
