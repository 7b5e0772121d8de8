"""The same app code reads its project at a Trust and on a researcher's own machine."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from flip import FLIP, HubOnly, QueryDiffers, ResourceMissing, StudyUnknown
from flip.app import DATA_VARIABLE, LOCAL_DEV, RESOURCES_VARIABLE
from flip.constants import ResourceType
from flip.data import query_digest
from flip.nvflare.metrics import send_metrics_value
from flip.utils import FLIPDataset, get_model_weights_diff
from nvflare.apis.dxo import DataKind, MetaKey
from nvflare.apis.fl_context import FLContext

pytestmark = pytest.mark.requirement("RUN-10")

QUERY = "SELECT accession_id FROM omop.imaging_occurrence"
BOTH = [ResourceType.NIFTI, ResourceType.SEGMENTATION]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two studies: the first with a label, the second, whose id begins with 0, without."""
    folder = tmp_path / "app_data"
    for name in ("ACC1", "0042"):
        study = folder / "images" / name / "scan"
        study.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), study / "input_1.nii.gz")
    (folder / "images" / "ACC1" / "scan" / "label_1.nii.gz").touch()
    (folder / "cohort.csv").write_text("accession_id,age\nACC1,61\n0042,58\n")
    (folder / "project.json").write_text(json.dumps({"project_id": "P", "query_sha256": query_digest(QUERY)}))
    return folder


@pytest.fixture
def at_a_trust(project: Path, monkeypatch: pytest.MonkeyPatch) -> FLIP:
    monkeypatch.delenv(LOCAL_DEV, raising=False)
    monkeypatch.setenv(DATA_VARIABLE, str(project))
    monkeypatch.setenv(RESOURCES_VARIABLE, str(project.parent / "resources"))
    return FLIP()


@pytest.fixture
def at_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> FLIP:
    monkeypatch.setenv(LOCAL_DEV, "true")
    monkeypatch.setenv("DEV_DATAFRAME", str(project / "cohort.csv"))
    monkeypatch.setenv("DEV_IMAGES_DIR", str(project / "images"))
    return FLIP()


@pytest.fixture(params=["at_a_trust", "at_home"])
def anywhere(request: pytest.FixtureRequest) -> FLIP:
    return request.getfixturevalue(request.param)


def test_the_frame_has_the_accession_ids_as_they_are_written(anywhere: FLIP):
    frame = anywhere.get_dataframe("P", QUERY)
    assert list(frame["accession_id"]) == ["ACC1", "0042"]
    assert list(frame["age"]) == [61, 58]


def test_the_query_is_known_by_its_digest_too(anywhere: FLIP):
    by_digest = anywhere.get_dataframe("P", query_digest(QUERY))
    assert by_digest.equals(anywhere.get_dataframe("P", QUERY))


def test_a_study_is_a_folder_with_images_and_the_labels_beside_them(anywhere: FLIP):
    study = anywhere.get_by_accession_number("P", "ACC1", BOTH)
    [image] = study.rglob("input_*.nii.gz")
    assert Path(str(image).replace("/input_", "/label_")).exists()


def test_a_study_that_lacks_what_is_asked_for_is_refused_without_its_id(anywhere: FLIP):
    anywhere.get_by_accession_number("P", "0042")
    with pytest.raises(ResourceMissing, match="SEGMENTATION") as refused:
        anywhere.get_by_accession_number("P", "0042", BOTH)
    assert "0042" not in str(refused.value)
    with pytest.raises(ResourceMissing, match="DICOM"):
        anywhere.get_by_accession_number("P", "ACC1", ResourceType.DICOM)


def test_a_study_of_dicom_files_is_found_in_local_development(at_home: FLIP, project: Path):
    (project / "images" / "ACC1" / "scan" / "1.dcm").touch()
    study = at_home.get_by_accession_number("P", "ACC1", ResourceType.DICOM)
    assert [file.name for file in study.rglob("*.dcm")] == ["1.dcm"]


@pytest.mark.parametrize("accession_id", ["ACC9", "..", "../images/ACC1", "/etc", ""])
def test_only_studies_of_the_project_can_be_asked_for(anywhere: FLIP, accession_id: str):
    with pytest.raises((StudyUnknown, ValueError), match="accession_id"):
        anywhere.get_by_accession_number("P", accession_id)


def test_another_query_or_project_than_the_approved_one_is_an_error_at_a_trust(at_a_trust: FLIP):
    for other in ("SELECT * FROM omop.person", query_digest("SELECT * FROM omop.person"), f"{QUERY} "):
        with pytest.raises(QueryDiffers, match="query"):
            at_a_trust.get_dataframe("P", other)
    with pytest.raises(QueryDiffers, match="project_id"):
        at_a_trust.get_dataframe("Q", QUERY)
    with pytest.raises(QueryDiffers, match="project_id"):
        at_a_trust.get_by_accession_number("Q", "ACC1")


def test_added_files_are_laid_by_study_scan_and_resource(anywhere: FLIP, tmp_path: Path):
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"mask")
    anywhere.add_resource("P", "ACC1", "scan-1", "PREDICTION", [str(mask)])
    [stored] = tmp_path.glob("**/resources/ACC1/scan-1/PREDICTION/mask.nii.gz")
    assert stored.read_bytes() == b"mask"
    with pytest.raises(ValueError, match="scan_id"):
        anywhere.add_resource("P", "ACC1", "../..", "PREDICTION", [str(mask)])


def test_without_its_settings_flip_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch):
    for name in (LOCAL_DEV, DATA_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=DATA_VARIABLE):
        FLIP()
    monkeypatch.setenv(LOCAL_DEV, "1")
    monkeypatch.delenv("DEV_DATAFRAME", raising=False)
    with pytest.raises(ValueError, match="DEV_DATAFRAME"):
        FLIP()


def test_at_home_metrics_and_what_is_meant_for_the_hub_are_logged(at_home: FLIP, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "flip")
    send_metrics_value("LOSS", 0.5, FLContext(), round=3, flip=at_home)
    at_home.update_status("model", "TRAINED")
    assert [record.message for record in caplog.records] == ["metric LOSS = 0.5 (round 3)", "update_status"]


def test_at_a_trust_what_only_the_hub_does_is_refused(at_a_trust: FLIP):
    with pytest.raises(HubOnly, match="update_status"):
        at_a_trust.update_status("model", "TRAINED")


def test_the_difference_of_tensors_and_arrays_weighs_the_iterations():
    original = {"w": np.array([1.0, 2.0], np.float32), "n": np.array(3)}
    new = {"w": torch.tensor([1.5, 2.0]), "n": torch.tensor(5)}
    dxo = get_model_weights_diff(original, new, 7)
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 7
    assert dxo.data["w"].tolist() == [0.5, 0.0]
    assert (dxo.data["w"].dtype, int(dxo.data["n"])) == (np.float32, 2)


@pytest.mark.parametrize("new", [{"v": np.zeros(2)}, {"w": np.zeros(1)}])
def test_models_that_do_not_match_have_no_difference(new: dict[str, np.ndarray]):
    with pytest.raises(ValueError, match="weights"):
        get_model_weights_diff({"w": np.zeros(2)}, new, 1)


def test_a_data_set_has_a_sample_for_each_one_of_the_cohort(anywhere: FLIP):
    class Ages(FLIPDataset):
        def _build_datalist(self, dataframe):
            return [{"age": age} for age in dataframe["age"]]

    assert Ages(anywhere, "P", QUERY, transform=lambda sample: sample["age"])[1] == 58


def test_importing_flip_imports_no_framework():
    heavy = "{'torch', 'nvflare', 'monai', 'pandas', 'flwr'}"
    code = f"import sys, flip, flip.utils, flip.constants; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
