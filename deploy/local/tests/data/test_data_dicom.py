"""The DICOM files: nothing is lost in them, and what de-identification must remove is really there."""

import csv
import re
import subprocess
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from flip_local.data.dicom import planted_values
from flip_local.data.images import read_hemisphere, volume
from flip_local.data.people import Patient, hospital, patients
from flip_local.data.studies import Made
from flip_local.layout import CHECKOUT
from pydicom import DataElement, Dataset, dcmread

pytestmark = pytest.mark.parts
TRUSTS = ("KCH", "UCLH")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


Grid = tuple[np.ndarray, np.ndarray]
"""Voxel values along right, front and top, and the affine to millimetres in RAS+ space."""


def from_dicom(volume: hd.Volume) -> Grid:
    return from_nifti(nib.Nifti1Image(volume.array.astype(np.int16), LPS_TO_RAS @ volume.affine))


def from_nifti(image: object) -> Grid:
    assert isinstance(image, nib.Nifti1Image)
    canonical = nib.as_closest_canonical(image)
    return np.asanyarray(canonical.dataobj), np.asarray(canonical.affine)


def assert_same(found: Grid, expected: Grid) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def series_of(made: Made, patient: Patient) -> list[Dataset]:
    return [dcmread(path) for path in made.series(patient.accession)]


@pytest.mark.parametrize("trust", TRUSTS)
def test_images_and_labels_are_voxel_exact_through_dicom_and_back(made: dict[str, Made], templates: Path, trust: str):
    at = hospital(trust)
    hemisphere = read_hemisphere(templates, at.side)
    for patient in patients(trust):
        source = volume(hemisphere, at, patient.number)
        scan = hd.get_volume_from_series(series_of(made[trust], patient))
        assert_same(from_dicom(scan), (source.image, source.affine))
        if not patient.held_out:
            seg = hd.seg.segread(made[trust].labels / f"{patient.accession}.dcm")
            label = seg.get_volume(combine_segments=True).match_geometry(scan)
            assert_same(from_dicom(label), (source.label, source.affine))


@pytest.mark.parametrize("trust", TRUSTS)
def test_held_out_cases_are_on_the_grid_that_their_dicom_series_gives(made: dict[str, Made], trust: str):
    folder = made[trust].heldout
    for patient in patients(trust):
        image, label = folder / "images" / f"{patient.case}_0000.nii.gz", folder / "labels" / f"{patient.case}.nii.gz"
        assert image.is_file() == label.is_file() == patient.held_out
        if patient.held_out:
            scan = from_dicom(hd.get_volume_from_series(series_of(made[trust], patient)))
            assert_same(from_nifti(nib.load(image)), scan)
            values, affine = from_nifti(nib.load(label))
            assert values.shape == scan[0].shape
            np.testing.assert_allclose(affine, scan[1], atol=1e-6)
            assert np.unique(values).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("trust", TRUSTS)
def test_the_manifest_names_one_label_for_each_training_patient(made: dict[str, Made], trust: str):
    labels = made[trust].labels
    with (labels / "manifest.csv").open(newline="") as file:
        rows = {row["accession_id"]: row["file"] for row in csv.DictReader(file)}
    assert list(rows) == [patient.accession for patient in patients(trust) if not patient.held_out]
    assert {path.name for path in labels.glob("*.dcm")} == set(rows.values())
    for accession, name in rows.items():
        assert dcmread(labels / name).AccessionNumber == accession


def test_each_label_refers_to_the_images_of_its_own_series(made: dict[str, Made]):
    studies = {study.accession: study for study in made["KCH"].studies()}
    for path in made["KCH"].labels.glob("*.dcm"):
        seg = dcmread(path)
        study = studies[seg.AccessionNumber]
        referred = {
            item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        }
        assert seg.StudyInstanceUID == study.study_uid
        assert referred == set(study.instance_uids)


@pytest.mark.parametrize("trust", TRUSTS)
def test_identifying_values_are_planted_in_plain_nested_and_private_elements(made: dict[str, Made], trust: str):
    for patient in patients(trust):
        first = series_of(made[trust], patient)[0]
        plain = text_of([e for e in first if e.VR != "SQ" and not e.tag.is_private])
        nested = text_of([e for e in first if e.VR == "SQ" and not e.tag.is_private])
        private = text_of([e for e in first if e.tag.is_private])
        for value in (patient.family_name, patient.hospital_number):
            assert all(value in places for places in (plain, nested, private))


@pytest.mark.parametrize("trust", TRUSTS)
def test_every_planted_value_is_in_the_files_of_its_patient(made: dict[str, Made], trust: str):
    for patient in patients(trust):
        files = made[trust].series(patient.accession)[:1]
        if not patient.held_out:
            files.append(made[trust].labels / f"{patient.accession}.dcm")
        text = "\n".join(str(dcmread(path)) for path in files)
        # a held-out patient has no SEG and so no annotator
        wanted = [value for value in planted_values(patient) if not (patient.held_out and value in "Marchbanks Isolde")]
        assert [value for value in wanted if value not in text] == []


def test_no_image_is_in_version_control():
    tracked = subprocess.run(("git", "ls-files"), cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert [name for name in tracked.splitlines() if re.search(r"\.(nii|dcm|npz)(\.gz)?$", name)] == []


def text_of(elements: list[DataElement]) -> str:
    """The elements and everything inside them as text."""
    dataset = Dataset()
    for element in elements:
        dataset.add(element)
    return str(dataset)
