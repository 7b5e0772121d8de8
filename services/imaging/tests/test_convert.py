"""DICOM to NIfTI: every voxel, on the right place, under the right name."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from flip_imaging.convert import convert_nifti_label, convert_segmentation, convert_series, sha256_of
from flip_imaging.ports import ConversionFailed
from flip_imaging.testing import Scan, make_scan

pytestmark = pytest.mark.requirement("IMG-5")

LABELS = {"striatum": 1, "thalamus": 2, "hippocampus_amygdala": 3}


@pytest.fixture
def scan() -> Scan:
    return make_scan(2)


@pytest.fixture
def image(scan: Scan, tmp_path: Path) -> Path:
    convert_series(scan.write(tmp_path), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def read(file: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(file)


def affine_of(file: Path) -> np.ndarray:
    return np.asarray(read(file).affine)


def label_file(file: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, affine), file)
    return file


def test_a_series_becomes_the_same_voxels_in_the_same_place(scan: Scan, image: Path) -> None:
    nifti = read(image)
    assert np.array_equal(np.asanyarray(nifti.dataobj), scan.volume.image)
    assert np.asanyarray(nifti.dataobj).dtype == np.int16
    assert np.allclose(affine_of(image), scan.volume.affine, atol=1e-4)


def test_the_order_of_the_files_does_not_matter_and_twice_gives_the_same_bytes(scan: Scan, tmp_path: Path) -> None:
    files = scan.write(tmp_path)
    first = convert_series(files, tmp_path / "first.nii.gz")
    second = convert_series(files[::-1], tmp_path / "second.nii.gz")
    assert first.sha256 == second.sha256 == sha256_of(tmp_path / "second.nii.gz")


def test_a_rescaled_series_keeps_its_fractions(scan: Scan, tmp_path: Path) -> None:
    for instance in scan.series:
        instance.RescaleSlope, instance.RescaleIntercept = "0.5", "-1000"
    convert_series(scan.write(tmp_path), tmp_path / "image.nii.gz")
    values = np.asanyarray(read(tmp_path / "image.nii.gz").dataobj)
    assert values.dtype == np.float32
    assert np.allclose(values, scan.volume.image * 0.5 - 1000)


def test_a_gap_between_slices_is_refused(scan: Scan, tmp_path: Path) -> None:
    files = scan.write(tmp_path)
    del files[4]
    with pytest.raises(ConversionFailed, match="no regular volume"):
        convert_series(files, tmp_path / "image.nii.gz")
    assert not list(tmp_path.glob("*.nii.gz"))


def test_the_longest_series_is_taken_and_equals_are_refused(scan: Scan, tmp_path: Path) -> None:
    files = scan.write(tmp_path)
    scout = []
    for number, instance in enumerate(make_scan(2).series):
        instance.SeriesInstanceUID = "2.25.7"
        scout.append(tmp_path / f"scout{number}.dcm")
        instance.save_as(scout[-1], enforce_file_format=True)
    converted = convert_series([*scout[:3], *files], tmp_path / "image.nii.gz")
    assert converted.series_instance_uid == scan.series[0].SeriesInstanceUID
    with pytest.raises(ConversionFailed, match="several series"):
        convert_series([*scout, *files], tmp_path / "image.nii.gz")


def test_a_segmentation_becomes_the_same_labels_on_the_images_grid(scan: Scan, image: Path, tmp_path: Path) -> None:
    file = scan.write_segmentation(tmp_path / "seg.dcm")
    converted = convert_segmentation(file, image, tmp_path / "label.nii.gz")
    label = read(tmp_path / "label.nii.gz")
    assert np.array_equal(np.asanyarray(label.dataobj), scan.volume.label)
    assert np.array_equal(affine_of(tmp_path / "label.nii.gz"), affine_of(image))
    assert converted.labels == LABELS
    assert converted.found == {1, 2, 3}


def test_a_segmentation_of_another_grid_is_refused(image: Path, tmp_path: Path) -> None:
    file = make_scan(3).write_segmentation(tmp_path / "seg.dcm")
    with pytest.raises(ConversionFailed, match="grid"):
        convert_segmentation(file, image, tmp_path / "label.nii.gz")


def test_two_segments_of_one_name_are_refused(scan: Scan, image: Path, tmp_path: Path) -> None:
    scan.segmentation.SegmentSequence[1].SegmentLabel = "striatum"
    with pytest.raises(ConversionFailed, match="share a name"):
        convert_segmentation(scan.write_segmentation(tmp_path / "seg.dcm"), image, tmp_path / "label.nii.gz")


def test_a_nifti_label_in_another_orientation_lands_on_the_same_voxels(scan: Scan, image: Path, tmp_path: Path) -> None:
    canonical = nib.Nifti1Image(scan.volume.label, scan.volume.affine)
    canonical.header["descrip"] = b"Doe^Jane"
    flipped = canonical.as_reoriented([[0, -1], [2, 1], [1, -1]])
    nib.save(flipped, tmp_path / "theirs.nii.gz")
    converted = convert_nifti_label(tmp_path / "theirs.nii.gz", image, LABELS, tmp_path / "label.nii.gz")
    label = read(tmp_path / "label.nii.gz")
    assert np.array_equal(np.asanyarray(label.dataobj), scan.volume.label)
    assert b"Doe" not in gzip.decompress((tmp_path / "label.nii.gz").read_bytes())
    assert converted.found == {1, 2, 3}


def test_a_nifti_label_on_another_grid_is_refused(scan: Scan, image: Path, tmp_path: Path) -> None:
    shifted = scan.volume.affine.copy()
    shifted[0, 3] += 0.5
    theirs = label_file(tmp_path / "theirs.nii.gz", scan.volume.label, shifted)
    with pytest.raises(ConversionFailed, match="grid"):
        convert_nifti_label(theirs, image, LABELS, tmp_path / "label.nii.gz")


def test_a_label_value_without_a_name_is_refused(scan: Scan, image: Path, tmp_path: Path) -> None:
    theirs = label_file(tmp_path / "theirs.nii.gz", scan.volume.label, scan.volume.affine)
    with pytest.raises(ConversionFailed, match=r"\[3\]"):
        convert_nifti_label(theirs, image, {"striatum": 1, "thalamus": 2}, tmp_path / "label.nii.gz")


def test_an_empty_label_is_refused(scan: Scan, image: Path, tmp_path: Path) -> None:
    theirs = label_file(tmp_path / "theirs.nii.gz", np.zeros_like(scan.volume.label), scan.volume.affine)
    with pytest.raises(ConversionFailed, match="empty"):
        convert_nifti_label(theirs, image, LABELS, tmp_path / "label.nii.gz")
