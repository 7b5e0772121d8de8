"""Makes the files of one Trust once and keeps them: DICOM series, labels for the operator, held-out cases.

<made>/studies.json                          what the PACS must hold, and the shape of each series
<made>/dicom/<accession>/<instance>.dcm      the MR series of all 14 patients
<made>/labels/<accession>.dcm, manifest.csv  the SEGs of the 12 training patients
<made>/heldout/{images,labels}/              the 2 held-out patients as NIfTI under nnU-Net's names
"""

import csv
import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from pydicom import Dataset

from flip_local.data.dicom import label_segmentation, mr_series
from flip_local.data.images import Volume, read_hemisphere, volume, write_nifti
from flip_local.data.people import Patient, Study, hospital, patients
from flip_local.data.source import move_into_place

_GENERATOR = ("people.py", "images.py", "dicom.py", "studies.py")
_LIBRARIES = ("highdicom", "pydicom", "nibabel", "numpy", "scipy")
_SOURCES = ("ch2.nii.gz", "aal.nii.gz", "aal.nii.txt")


@dataclass(frozen=True, slots=True)
class Made:
    """The finished files of one Trust."""

    folder: Path

    def studies(self) -> tuple[Study, ...]:
        rows = json.loads((self.folder / "studies.json").read_bytes())
        return tuple(
            Study(**{**row, "instance_uids": tuple(row["instance_uids"]), "shape": tuple(row["shape"])}) for row in rows
        )

    def series(self, accession: str) -> list[Path]:
        """The DICOM files of one study, from the lowest slice up."""
        return sorted((self.folder / "dicom" / accession).glob("*.dcm"))

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    @property
    def heldout(self) -> Path:
        return self.folder / "heldout"


def make(trust: str, templates: Path, cache: Path) -> Made:
    """The Trust's files made from `templates`; taken from `cache` when generator, libraries and input are the same."""
    at = hospital(trust)
    edition = _edition(templates)
    target = cache / edition / trust
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        hemisphere = read_hemisphere(templates, at.side)
        scans = ((patient, volume(hemisphere, at, patient.number)) for patient in patients(trust))
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            draft = write_studies(Path(scratch, trust), scans, edition)
            move_into_place(draft.folder, target)
    return Made(target)


def _edition(templates: Path) -> str:
    """Digest of everything that the files depend on."""
    seen = hashlib.sha256()
    for name in _GENERATOR:
        seen.update((files("flip_local.data") / name).read_bytes())
    for name in _LIBRARIES:
        seen.update(f"{name}={version(name)}\n".encode())
    for name in _SOURCES:
        seen.update((templates / name).read_bytes())
    return seen.hexdigest()[:16]


def write_studies(folder: Path, scans: Iterable[tuple[Patient, Volume]], edition: str) -> Made:
    """Write each patient's MR series, labels with a manifest to train on, NIfTI of the held-out."""
    for name in ("dicom", "labels", "heldout/images", "heldout/labels"):
        (folder / name).mkdir(parents=True)
    studies: list[Study] = []
    for patient, scan in scans:
        series = mr_series(patient, scan, edition)
        studies.append(_write_series(patient, series, scan, folder / "dicom" / patient.accession))
        if patient.held_out:
            _write_case(patient, scan, folder / "heldout")
        else:
            seg = label_segmentation(patient, series, scan, edition)
            seg.save_as(folder / "labels" / f"{patient.accession}.dcm", enforce_file_format=True)
    (folder / "studies.json").write_text(json.dumps([asdict(study) for study in studies], indent=1))
    _write_manifest(folder / "labels")
    return Made(folder)


def _write_series(patient: Patient, series: list[Dataset], scan: Volume, folder: Path) -> Study:
    folder.mkdir()
    for image in series:
        image.save_as(folder / f"{image.InstanceNumber:03d}.dcm", enforce_file_format=True)
    columns, rows, slices = scan.image.shape
    return Study(
        accession=patient.accession,
        study_uid=series[0].StudyInstanceUID,
        series_uid=series[0].SeriesInstanceUID,
        instance_uids=tuple(image.SOPInstanceUID for image in series),
        shape=(columns, rows, slices),
    )


def _write_case(patient: Patient, scan: Volume, folder: Path) -> None:
    write_nifti(folder / "images" / f"{patient.case}_0000.nii.gz", scan.image, scan.affine)
    write_nifti(folder / "labels" / f"{patient.case}.nii.gz", scan.label, scan.affine)


def _write_manifest(labels: Path) -> None:
    with (labels / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["accession_id", "file"])
        rows.writerows([path.stem, path.name] for path in sorted(labels.glob("*.dcm")))
