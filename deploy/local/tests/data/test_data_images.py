"""The patients: how many, how different, and made the same way every time."""

import itertools
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from flip_local.data.images import STRUCTURES, AtlasError, Hemisphere, Volume, read_hemisphere, volume
from flip_local.data.people import hospital, patients
from flip_local.data.source import templates as find_templates
from flip_local.data.studies import Made, make
from nibabel.affines import apply_affine, voxel_sizes

TRUSTS = ("KCH", "UCLH")


@pytest.fixture(scope="module")
def hemispheres(templates: Path) -> dict[str, Hemisphere]:
    return {trust: read_hemisphere(templates, hospital(trust).side) for trust in TRUSTS}


def lattice_points(scan: Volume) -> set[tuple[int, ...]]:
    """The source voxels of a patient's grid, as millimetres in the head."""
    indices = np.indices(scan.image.shape).reshape(3, -1).T
    return set(map(tuple, np.rint(apply_affine(scan.affine, indices)).astype(int).tolist()))


@pytest.mark.parametrize("trust", TRUSTS)
def test_each_trust_has_twelve_training_patients_and_two_held_out(trust: str):
    everyone = patients(trust)
    assert len(everyone) == 14
    assert [patient.case for patient in everyone if patient.held_out] == [f"{trust}_07", f"{trust}_13"]


def test_no_two_patients_share_an_identity():
    everyone = [patient for trust in TRUSTS for patient in patients(trust)]
    for attribute in ("person_id", "hospital_number", "family_name", "accession"):
        assert len({getattr(patient, attribute) for patient in everyone}) == len(everyone)


def test_a_trust_without_data_is_refused_by_name():
    with pytest.raises(ValueError, match="'GOSH' has no synthetic data; known are KCH, UCLH"):
        patients("GOSH")


@pytest.mark.parts
def test_the_eight_lattices_have_no_voxel_in_common(hemispheres: dict[str, Hemisphere]):
    points = [lattice_points(volume(hemispheres["KCH"], hospital("KCH"), number)) for number in range(8)]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(points, 2))


@pytest.mark.parts
@pytest.mark.parametrize("trust", TRUSTS)
def test_held_out_patients_lie_on_a_lattice_of_their_own(hemispheres: dict[str, Hemisphere], trust: str):
    points = {p: lattice_points(volume(hemispheres[trust], p.hospital, p.number)) for p in patients(trust)}
    seen = set[tuple[int, ...]]().union(*(points[p] for p in points if not p.held_out))
    assert all(seen.isdisjoint(points[p]) for p in points if p.held_out)


@pytest.mark.parts
@pytest.mark.parametrize("trust", TRUSTS)
def test_every_patient_has_every_structure_at_two_millimetres(hemispheres: dict[str, Hemisphere], trust: str):
    for patient in patients(trust):
        scan = volume(hemispheres[trust], patient.hospital, patient.number)
        assert scan.image.shape == scan.label.shape
        assert voxel_sizes(scan.affine).tolist() == [2, 2, 2]
        assert all((scan.label == structure).sum() > 900 for structure in STRUCTURES)


@pytest.mark.parts
def test_both_trusts_see_the_same_side(hemispheres: dict[str, Hemisphere]):
    """The mirrored right thalamus lies in the left half of the head, as the left one does."""
    for hemisphere in hemispheres.values():
        thalamus = apply_affine(hemisphere.affine, np.argwhere(hemisphere.label == 2)).mean(axis=0)
        assert thalamus[0] < -8


@pytest.mark.parts
def test_making_twice_gives_the_same_bytes(made: dict[str, Made], templates: Path, tmp_path: Path):
    again = make("KCH", templates, tmp_path)

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    assert contents(again.folder) == contents(made["KCH"].folder)


@pytest.mark.parts
def test_the_package_is_unpacked_where_it_is_not_installed(templates: Path, tmp_path: Path):
    nowhere, parts = tmp_path / "system", tmp_path / "parts"
    found = find_templates(parts, nowhere)
    assert found.is_relative_to(parts)
    for name in ("ch2.nii.gz", "aal.nii.gz"):
        assert (found / name).read_bytes() == (templates / name).read_bytes()
    assert find_templates(parts, nowhere) == found


@pytest.mark.parts
def test_an_atlas_without_the_wanted_regions_is_refused(templates: Path, tmp_path: Path):
    for name in ("ch2.nii.gz", "aal.nii.gz"):
        shutil.copy(templates / name, tmp_path)
    names = (templates / "aal.nii.txt").read_text()
    (tmp_path / "aal.nii.txt").write_text(names.replace("Thalamus_L", "Unknown_L"))
    with pytest.raises(AtlasError, match="Thalamus_L"):
        read_hemisphere(tmp_path, "L")


@pytest.mark.parts
def test_an_atlas_on_another_grid_is_refused(templates: Path, tmp_path: Path):
    shutil.copy(templates / "ch2.nii.gz", tmp_path)
    regions = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nib.save(regions, tmp_path / "aal.nii.gz")
    with pytest.raises(AtlasError, match="not on one grid"):
        read_hemisphere(tmp_path, "L")
