"""Loading one Trust: database, PACS, operator's folder and held-out cases, as often as one likes."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from flip_local.data.images import Volume
from flip_local.data.load import Seeded, seed, write_files
from flip_local.data.pacs import Pacs
from flip_local.data.people import patients
from flip_local.data.studies import Made, write_studies
from flip_local.layout import Layout
from pydicom import dcmread

pytestmark = pytest.mark.parts
IMAGES_AT_KCH = 14 * 35


def test_a_trust_is_seeded_once_and_a_second_time_changes_nothing(omop_databases, orthanc, tmp_path: Path):
    owner = omop_databases.owner(omop_databases.new())

    def run() -> Seeded:
        return seed(
            "KCH",
            parts=Layout.from_environment().downloads,
            out=tmp_path / "trust",
            omop_owner_dsn=owner,
            pacs_url=orthanc.url,
            pacs_user=orthanc.user,
            pacs_password=orthanc.password,
        )

    assert run() == Seeded(omop_replaced=True, images_stored=IMAGES_AT_KCH, files_written=12 + 1 + 4)
    assert orthanc.accessions() == sorted(patient.accession for patient in patients("KCH"))
    assert run() == Seeded(omop_replaced=False, images_stored=0, files_written=0)


def test_the_command_seeds_a_trust(omop_databases, orthanc, tmp_path: Path):
    owner = omop_databases.owner(omop_databases.new())
    done = command("KCH", tmp_path, owner, orthanc)
    assert done.stdout == "KCH: OMOP loaded, 490 images stored, 17 files written\n", done.stderr
    assert {path.name for path in (tmp_path / "heldout" / "KCH" / "labels").iterdir()} == {
        "KCH_07.nii.gz",
        "KCH_13.nii.gz",
    }


def test_the_command_names_the_trust_that_has_no_data(omop_databases, orthanc, tmp_path: Path):
    done = command("GOSH", tmp_path, omop_databases.owner(omop_databases.new()), orthanc)
    assert done.returncode == 1
    assert "'GOSH' has no synthetic data; known are KCH, UCLH" in done.stderr


def small(folder: Path, edition: str) -> Made:
    """Two patients with a series of four tiny slices each."""
    chance = np.random.default_rng(7)
    label = chance.integers(0, 4, (6, 5, 4)).astype(np.uint8)
    scan = Volume(image=label.astype(np.uint16) * 100, label=label, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    return write_studies(folder, [(patient, scan) for patient in patients("KCH")[:2]], edition)


def test_a_wrong_pacs_password_is_an_error_and_not_shown(orthanc, tmp_path: Path):
    with Pacs(orthanc.url, orthanc.user, "wrong-secret") as pacs, pytest.raises(requests.HTTPError) as refused:
        pacs.fill(small(tmp_path / "made", "first"))
    assert refused.value.response is not None
    assert refused.value.response.status_code == 401
    assert "wrong-secret" not in str(refused.value)


def test_the_pacs_gives_back_what_was_made_to_the_last_private_element(orthanc, tmp_path: Path):
    made = small(tmp_path / "made", "first")
    with Pacs(orthanc.url, orthanc.user, orthanc.password) as pacs:
        assert pacs.fill(made) == 8
    for source in map(dcmread, made.folder.glob("dicom/*/*.dcm")):
        (found,) = orthanc.find("SOPInstanceUID", source.SOPInstanceUID)
        assert dcmread(BytesIO(orthanc.get(f"/instances/{found}/file").content)) == source


def test_an_image_that_the_pacs_lost_is_stored_again(orthanc, tmp_path: Path):
    made = small(tmp_path / "made", "first")
    with Pacs(orthanc.url, orthanc.user, orthanc.password) as pacs:
        pacs.fill(made)
        orthanc.delete(f"/instances/{orthanc.get('/instances').json()[0]}")
        assert pacs.fill(made) == 1
    assert len(orthanc.get("/instances").json()) == 8


def test_studies_of_another_edition_are_replaced(orthanc, tmp_path: Path):
    with Pacs(orthanc.url, orthanc.user, orthanc.password) as pacs:
        pacs.fill(small(tmp_path / "old", "first"))
        new = small(tmp_path / "new", "second")
        assert pacs.fill(new) == 8
    studies = orthanc.get("/studies?expand").json()
    assert {study["MainDicomTags"]["StudyInstanceUID"] for study in studies} == {s.study_uid for s in new.studies()}


def test_a_damaged_file_of_the_operator_is_put_right(tmp_path: Path):
    made = small(tmp_path / "made", "first")
    write_files(made, "KCH", tmp_path)
    manifest = tmp_path / "operator" / "labels" / "manifest.csv"
    good = manifest.read_bytes()
    manifest.write_bytes(b"damaged")
    assert write_files(made, "KCH", tmp_path) == 1
    assert manifest.read_bytes() == good


def command(trust: str, out: Path, dsn: str, orthanc) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "FLIP_OMOP_OWNER_DSN": dsn,
        "FLIP_PACS_URL": orthanc.url,
        "FLIP_PACS_USER": orthanc.user,
        "FLIP_PACS_PASSWORD": orthanc.password,
    }
    parts = str(Layout.from_environment().downloads)
    arguments = ("-m", "flip_local.data", "--trust", trust, "--parts", parts, "--out", str(out))
    return subprocess.run((sys.executable, *arguments), env=environment, capture_output=True, text=True, check=False)
