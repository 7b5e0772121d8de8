"""A ready nnU-Net data set is checked whole: each thing that is wrong with it is named, and what is right is copied."""

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.ready_dataset import (
    CopiedCase,
    DatasetProblem,
    NotUsable,
    copy_case,
    digest_of,
    read_dataset,
)
from flip_imaging.testing import ReadyDataset, make_dataset, voxels_of
from nibabel.nifti1 import Nifti1Extension

pytestmark = pytest.mark.requirement("NNU-12")

FIRST, SECOND = "SMITH_JOHN_000", "SMITH_JOHN_001"


@pytest.fixture
def ready(tmp_path: Path) -> ReadyDataset:
    return make_dataset(tmp_path.resolve() / "Dataset123_Brain")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def take(ready: ReadyDataset, into: Path) -> tuple[list[CopiedCase], list[DatasetProblem]]:
    """Check the data set, and copy what can be copied."""
    try:
        description, cases, problems = read_dataset(ready.folder)
    except NotUsable as unusable:
        return [], list(unusable.problems)
    copied: list[CopiedCase] = []
    for case in cases:
        (into / case.name).mkdir()
        taken = copy_case(case, description, into / case.name)
        if isinstance(taken, CopiedCase):
            copied.append(taken)
        else:
            problems += taken
    return copied, problems


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def values(file: Path) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(file).dataobj)


def place(file: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(file).affine)


def rewrite(file: Path, change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> None:
    image = nib.Nifti1Image.from_filename(file)
    changed = change(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine))
    nib.save(changed, file)


def moved(image: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = np.array(image.affine)
    affine[0, 3] += 1
    return nib.Nifti1Image(np.asanyarray(image.dataobj), affine)


def with_a_value(value: float, kind: type[np.number]) -> Callable[[nib.Nifti1Image], nib.Nifti1Image]:
    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        changed = np.array(image.dataobj, kind)
        changed[0, 0, 0] = value
        return nib.Nifti1Image(changed, image.affine)

    return change


def in_four_dimensions(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.stack([np.asanyarray(image.dataobj)] * 2, -1), image.affine)


def turned(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asanyarray(image.dataobj)[::-1], image.affine @ np.diag([-1.0, 1, 1, 1]))


Spoil = Callable[[ReadyDataset], object]

DESCRIPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "labels: regions"),
    ({"regions_class_order": [1, 2]}, "labels: regions"),
    ({"labels": {"background": 0, "core": 1, "ignore": 2}}, "labels: an ignore label"),
    ({"labels": {"nothing": 0, "core": 1}}, "labels: background must be there"),
    ({"labels": {"background": 0, "core": 1, "oedema": 3}}, "labels: the values must be 0, 1, 2"),
    ({"labels": {"background": 0, "core": 1, "oedema": 1}}, "labels: the values must be 0, 1, 2"),
    ({"labels": {"background": 0}}, "labels: names no structure"),
    ({"labels": {"background": 0, "1": "core"}}, "labels.1: "),
    ({"labels": None}, "labels: "),
    ({"channel_names": None}, "channel_names: "),
    ({"channel_names": {}}, "channel_names: "),
    ({"channel_names": {"0": "T1", "2": "FLAIR"}}, "channel_names: the keys must be"),
    ({"modality": {"0": "CT"}}, "channel_names: contradicts modality"),
    ({"numTraining": 4}, "numTraining: says 4, but there are 3 cases"),
    ({"numTraining": None}, "numTraining: "),
    ({"file_ending": ".tif"}, "file_ending: "),
    ({"dataset": {"a": {}}}, "dataset: a list of files"),
]


@pytest.mark.parametrize(("changes", "told"), DESCRIPTIONS)
def test_what_is_wrong_with_dataset_json_is_told_by_its_field(
    ready: ReadyDataset, into: Path, changes: dict[str, Any], told: str
) -> None:
    ready.describe(**changes)
    _, [problem] = take(ready, into)
    assert problem.file == "dataset.json"
    assert problem.problem.startswith(told)


def test_all_that_is_wrong_with_dataset_json_is_told_at_once(ready: ReadyDataset, into: Path) -> None:
    ready.describe(numTraining="3", file_ending=None)
    _, problems = take(ready, into)
    assert {problem.problem.split(":")[0] for problem in problems} == {"numTraining", "file_ending"}


def without(kind: str) -> Spoil:
    return lambda ready: (ready.label(FIRST) if kind == "label" else ready.image(FIRST, 1)).unlink()


def changed(kind: str, change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> Spoil:
    return lambda ready: rewrite(ready.label(FIRST) if kind == "label" else ready.image(FIRST, 1), change)


def outside(ready: ReadyDataset) -> None:
    real = ready.folder.parent / "elsewhere.nii.gz"
    shutil.move(ready.image(FIRST, 1), real)
    ready.image(FIRST, 1).symlink_to(real)


def a_pipe(ready: ReadyDataset) -> None:
    ready.image(FIRST, 1).unlink()
    os.mkfifo(ready.image(FIRST, 1))


def torn(ready: ReadyDataset) -> None:
    file = ready.image(FIRST, 1)
    file.write_bytes(file.read_bytes()[:-200])


def cut_short(ready: ReadyDataset) -> None:
    file = ready.image(FIRST, 1)
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-200]))


def skewed(ready: ReadyDataset) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.5
    for file in (ready.image(FIRST, 0), ready.image(FIRST, 1)):
        image = nib.Nifti1Image(voxels_of(0, 0), affine)
        image.set_qform(None, 0)
        nib.save(image if file == ready.image(FIRST, 1) else nib.Nifti1Image(voxels_of(0, 0), np.eye(4)), file)


def with_a_wrong_checksum(ready: ReadyDataset) -> None:
    noise = np.random.default_rng(0).random((64, 64, 64), np.float32)
    for file in (ready.image(FIRST, 0), ready.image(FIRST, 1)):
        nib.save(nib.Nifti1Image(noise, np.eye(4)), file)
    whole = bytearray(ready.image(FIRST, 1).read_bytes())
    whole[-8] ^= 1
    ready.image(FIRST, 1).write_bytes(whole)


def of_a_third_channel(ready: ReadyDataset) -> None:
    shutil.copy(ready.image(FIRST, 0), ready.image(FIRST, 2))


IMAGE, LABEL = f"imagesTr/{FIRST}_0001.nii.gz", f"labelsTr/{FIRST}.nii.gz"
FILES: list[tuple[Spoil, str, str]] = [
    (without("image"), IMAGE, "is missing"),
    (without("label"), LABEL, "is missing"),
    (outside, IMAGE, "is a link that leads out of the data set's folder"),
    (a_pipe, IMAGE, "is no file"),
    (of_a_third_channel, f"imagesTr/{FIRST}_0002.nii.gz", "is of a channel that dataset.json doesn't name"),
    (lambda ready: (ready.folder / "imagesTr" / "._x.nii.gz").touch(), "imagesTr/._x.nii.gz", "isn't named as a case"),
    (lambda ready: (ready.folder / "labelsTr" / "notes.txt").touch(), "labelsTr/notes.txt", "isn't named as a case"),
    (lambda ready: shutil.rmtree(ready.folder / "labelsTr"), "labelsTr", "is no folder"),
    (lambda ready: (ready.folder / "dataset.json").unlink(), "dataset.json", "is missing"),
    (lambda ready: (ready.folder / "dataset.json").write_text("{"), "dataset.json", "is no JSON"),
    (lambda ready: ready.image(FIRST, 1).write_bytes(b"no image"), IMAGE, "is a damaged gzip file"),
    (lambda ready: ready.image(FIRST, 1).write_bytes(gzip.compress(b"no image")), IMAGE, "has no NIfTI header"),
    (skewed, IMAGE, "can't be read by SimpleITK"),
    (torn, IMAGE, "is torn"),
    (cut_short, IMAGE, "is torn"),
    (with_a_wrong_checksum, IMAGE, "is a damaged gzip file"),
    (changed("image", moved), IMAGE, "doesn't lie on the grid"),
    (changed("label", moved), LABEL, "doesn't lie on the grid"),
    (changed("label", turned), LABEL, "doesn't lie on the grid"),
    (changed("image", in_four_dimensions), IMAGE, "has 4 dimensions"),
    (changed("label", with_a_value(3, np.uint8)), LABEL, "holds values that dataset.json doesn't name: [3"),
    (changed("label", with_a_value(0.5, np.float32)), LABEL, "holds values that are no whole numbers"),
]


@pytest.mark.parametrize(("spoil", "file", "told"), FILES)
def test_what_is_wrong_with_a_file_is_told_by_its_name(
    ready: ReadyDataset, into: Path, spoil: Spoil, file: str, told: str
) -> None:
    spoil(ready)
    _, problems = take(ready, into)
    assert [problem.file for problem in problems if problem.problem.startswith(told)] == [file]


def test_all_cases_that_can_not_be_used_are_told_at_once(ready: ReadyDataset, into: Path) -> None:
    ready.label(FIRST).unlink()
    rewrite(ready.image(SECOND, 1), moved)
    rewrite(ready.label(SECOND), with_a_value(9, np.uint8))
    copied, problems = take(ready, into)
    assert [problem.file for problem in problems] == [
        LABEL,
        f"imagesTr/{SECOND}_0001.nii.gz",
        f"labelsTr/{SECOND}.nii.gz",
    ]
    assert [case.name for case in copied] == ["SMITH_JOHN_002"]


def test_files_without_free_text_are_copied_byte_for_byte(ready: ReadyDataset, into: Path) -> None:
    copied, problems = take(ready, into)
    assert problems == []
    for case in copied:
        originals = [ready.image(case.name, 0), ready.image(case.name, 1), ready.label(case.name)]
        copies = [into / case.name / name for name in ("0000.nii.gz", "0001.nii.gz", "label.nii.gz")]
        assert [file.read_bytes() for file in copies] == [file.read_bytes() for file in originals]
        assert case.original == case.copied == tuple(map(sha256, originals))
        assert sorted((into / case.name).iterdir()) == copies
    assert [case.found for case in copied] == [{1, 2}, {1}, {1, 2}]


def named_by_gzip(file: Path) -> None:
    plain = gzip.decompress(file.read_bytes())
    with file.open("wb") as target, gzip.GzipFile("SMITH^JOHN", "wb", fileobj=target) as packed:
        packed.write(plain)


def described(file: Path) -> None:
    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        image.header["descrip"] = b"SMITH^JOHN"
        return image

    rewrite(file, change)


def extended(file: Path) -> None:
    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        image.header.extensions.append(Nifti1Extension("comment", b"SMITH^JOHN"))
        return image

    rewrite(file, change)


def with_a_tail(file: Path) -> None:
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"SMITH^JOHN"))


def with_a_second_member(file: Path) -> None:
    file.write_bytes(file.read_bytes() + gzip.compress(b"SMITH^JOHN"))


def scaled(file: Path) -> None:
    """Values as they may be stored: with a slope, and a name."""
    image = nib.Nifti1Image.from_filename(file)
    stored = nib.Nifti1Image((np.asanyarray(image.dataobj) * 4).astype(np.int32), image.affine)
    stored.header["descrip"] = b"SMITH^JOHN"
    stored.header.set_slope_inter(0.25, 0)
    nib.save(stored, file)


@pytest.mark.parametrize("plant", [named_by_gzip, described, extended, with_a_tail, with_a_second_member, scaled])
def test_free_text_in_a_file_stays_behind_and_its_voxels_come_along(
    ready: ReadyDataset, into: Path, plant: Callable[[Path], None]
) -> None:
    file = ready.image(FIRST, 1)
    plant(file)
    assert b"SMITH^JOHN" in file.read_bytes() + gzip.decompress(file.read_bytes())
    copied, problems = take(ready, into)
    assert problems == []
    copy = into / FIRST / "0001.nii.gz"
    assert b"SMITH" not in copy.read_bytes() + gzip.decompress(copy.read_bytes())
    assert np.array_equal(values(copy), voxels_of(0, 1))
    assert np.allclose(place(copy), place(file), atol=1e-4)
    assert (copied[0].original[1], copied[0].copied[1]) == (sha256(file), sha256(copy))
    assert copied[0].original[1] != copied[0].copied[1]


def as_other_format(ready: ReadyDataset, ending: str) -> ReadyDataset:
    other = ReadyDataset(ready.folder, ready.names, ending)
    for file in [*ready.folder.glob("*Tr/*.nii.gz")]:
        SimpleITK.WriteImage(SimpleITK.ReadImage(file), str(file).replace(".nii.gz", ending))
        file.unlink()
    other.describe()
    return other


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
def test_every_format_becomes_compressed_nifti_with_equal_voxels_in_the_same_place(
    ready: ReadyDataset, into: Path, ending: str
) -> None:
    expected = place(ready.image(SECOND, 0))
    _, problems = take(as_other_format(ready, ending), into)
    assert problems == []
    for kind, name in enumerate(("0000.nii.gz", "0001.nii.gz", "label.nii.gz")):
        copy = into / SECOND / name
        assert np.array_equal(values(copy), voxels_of(1, kind))
        assert np.allclose(place(copy), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("image", "holds values that are not finite"), ("label", "holds values that are no whole numbers")],
)
def test_a_voxel_without_a_value_is_told(ready: ReadyDataset, into: Path, kind: str, told: str) -> None:
    other = as_other_format(ready, ".nrrd")
    file = other.image(FIRST, 1) if kind == "image" else other.label(FIRST)
    image = SimpleITK.Cast(SimpleITK.ReadImage(file), SimpleITK.sitkFloat32)
    image[0, 0, 0] = float("nan")
    SimpleITK.WriteImage(image, file)
    _, problems = take(other, into)
    assert [(problem.file, problem.problem) for problem in problems] == [(f"{file.parent.name}/{file.name}", told)]


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
def test_a_torn_file_of_any_format_is_told(ready: ReadyDataset, into: Path, ending: str) -> None:
    other = as_other_format(ready, ending)
    torn(other)
    _, problems = take(other, into)
    assert [problem.file for problem in problems] == [f"imagesTr/{FIRST}_0001{ending}"]


@pytest.mark.parametrize(
    ("ending", "header"),
    [
        (".mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {}\n"),
        (".nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {}\n\n"),
    ],
)
def test_a_header_that_names_another_file_brings_nothing_of_it(
    ready: ReadyDataset, into: Path, tmp_path: Path, ending: str, header: str
) -> None:
    other = as_other_format(ready, ending)
    (tmp_path / "secret").write_bytes(b"12345678")
    other.image(FIRST, 1).write_text(header.format(tmp_path / "secret"))
    _, problems = take(other, into)
    assert [(problem.file, problem.problem) for problem in problems] == [
        (f"imagesTr/{FIRST}_0001{ending}", "names another file for its voxels")
    ]


def test_the_digest_is_of_what_sha256sum_says_of_the_operators_files(ready: ReadyDataset, into: Path) -> None:
    copied, _ = take(ready, into)
    description, _, _ = read_dataset(ready.folder)
    labels = '"labels":{"background":0,"core":1,"oedema":2}'
    lines = [f'{{"channel_names":{{"0":"T1","1":"FLAIR"}},"file_ending":".nii.gz",{labels},"numTraining":3}}']
    for name in ready.names:
        files = (ready.image(name, 0), ready.image(name, 1), ready.label(name))
        lines.append(" ".join([name, *map(sha256, files)]))
    expected = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert digest_of(description, copied[::-1]) == expected


def test_the_old_name_of_channels_is_read_and_says_the_same(ready: ReadyDataset) -> None:
    today = read_dataset(ready.folder)[0]
    ready.describe(channel_names=None, modality={"0": "T1", "1": "FLAIR"})
    old = read_dataset(ready.folder)[0]
    assert old == today
    assert json.loads(old.canonical)["channel_names"] == {"0": "T1", "1": "FLAIR"}


def test_a_cases_pseudonym_is_its_projects_own_and_no_studys() -> None:
    ours, theirs = (ProjectKey.derive(b"k" * 32, UUID(int=number)) for number in (1, 2))
    assert ours.dataset_case(FIRST) == ours.dataset_case(FIRST)
    assert len({key.dataset_case(name)[1:] for key in (ours, theirs) for name in (FIRST, SECOND)}) == 4
    assert ours.dataset_case(FIRST)[1:] != ours.case(FIRST)[1:]
