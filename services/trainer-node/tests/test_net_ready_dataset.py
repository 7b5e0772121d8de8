"""A ready data set that a Trust registered is what its trainers read: from the operator's folder to nnU-Net's."""

import json
from pathlib import Path
from uuid import UUID

import pytest
import SimpleITK
from flip_contracts.base import ProjectId
from flip_imaging.folders import DatasetCase, Folders, manifest_of_dataset
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.ready_dataset import CopiedCase, copy_case, digest_of, read_dataset
from flip_imaging.testing import ReadyDataset, make_dataset
from flip_trainer_node import app_data, dataset
from flip_trainer_node.preparing import CannotPrepare

pytestmark = pytest.mark.requirement("NNU-12")

PROJECT = ProjectId(UUID(int=5))
CASES = 10
KEY = ProjectKey.derive(b"k" * 32, PROJECT)


@pytest.fixture
def ready(tmp_path: Path) -> ReadyDataset:
    return make_dataset(tmp_path.resolve() / "Dataset123_Brain", CASES)


@pytest.fixture
def project(ready: ReadyDataset, tmp_path: Path) -> Path:
    """The project's folder once the data set is registered."""
    description, found, problems = read_dataset(ready.folder)
    assert problems == []
    content = tmp_path / "content"
    copied: list[CopiedCase] = []
    for case in found:
        into = content / KEY.dataset_case(case.name)
        into.mkdir(parents=True)
        taken = copy_case(case, description, into)
        assert isinstance(taken, CopiedCase)
        copied.append(taken)
    digest = digest_of(description, copied)
    cases = [DatasetCase(KEY.dataset_case(case.name), case.copied[:-1], case.copied[-1]) for case in copied]
    manifest = manifest_of_dataset(PROJECT, digest, description.channels, description.structures, cases)
    folders = Folders(tmp_path / "data")
    folders.take_in(PROJECT, digest, manifest, content)
    folders.manifest(PROJECT).write_bytes(manifest)
    return folders.manifest(PROJECT).parent


def test_two_channels_become_the_nnunet_data_set_with_equal_voxels(
    ready: ReadyDataset, project: Path, tmp_path: Path
) -> None:
    request = dataset.Request(project, PROJECT, tmp_path / "runs" / "r", "Dataset007_FLIP", CASES)
    assert dataset.prepare(request, lambda: True).cases == CASES
    folder = request.run / "nnUNet_raw" / request.name
    assert json.loads((folder / "dataset.json").read_bytes()) == {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "core": 1, "oedema": 2},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    for name in ready.names:
        case = KEY.dataset_case(name)
        for theirs, ours in (
            (ready.image(name, 0), folder / "imagesTr" / f"{case}_0000.nii.gz"),
            (ready.image(name, 1), folder / "imagesTr" / f"{case}_0001.nii.gz"),
            (ready.label(name), folder / "labelsTr" / f"{case}.nii.gz"),
        ):
            assert SimpleITK.Hash(SimpleITK.ReadImage(theirs)) == SimpleITK.Hash(SimpleITK.ReadImage(ours))
    assert len(list((folder / "imagesTr").iterdir())) == 2 * CASES


def test_a_case_that_lacks_a_channel_is_refused(project: Path, tmp_path: Path) -> None:
    manifest = json.loads((project / "manifest.json").read_bytes())
    manifest["cases"][3]["images"].pop()
    (project / "manifest.json").write_text(json.dumps(manifest))
    request = dataset.Request(project, PROJECT, tmp_path / "runs" / "r", "Dataset007_FLIP", CASES)
    with pytest.raises(CannotPrepare, match="manifest-not-valid"):
        dataset.prepare(request, lambda: True)


def test_an_app_is_told_that_a_ready_data_set_has_no_studies(project: Path, tmp_path: Path) -> None:
    studies = [app_data.Study(f"RAX-{number}", []) for number in range(CASES)]
    request = app_data.Request(project, PROJECT, tmp_path / "runs" / "r", CASES, "d" * 64, studies)
    with pytest.raises(CannotPrepare, match="dataset-has-no-studies"):
        app_data.prepare(request, lambda: True)
    assert list(request.run.iterdir()) == []
