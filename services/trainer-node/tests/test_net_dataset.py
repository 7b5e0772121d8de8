import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flip_contracts.base import ProjectId
from flip_trainer_node.dataset import Request, prepare
from flip_trainer_node.preparing import CannotPrepare, NotWanted

PROJECT = ProjectId(UUID(int=5))
CASES = 10


def manifest_of(project: Path, cases: int = CASES) -> dict[str, Any]:
    """A project's images and labels as the imaging service leaves them."""
    listed: list[dict[str, Any]] = []
    for number in range(cases):
        case: dict[str, Any] = {"case": f"case{number:03d}", "study": f"{number:064d}"}
        for kind in ("image", "label"):
            file = project / f"{kind}s" / f"case{number:03d}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{kind} {number}".encode())
            path = str(file.relative_to(project))
            case[kind] = {"path": path, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        case["images"] = [case.pop("image")]
        listed.append(case)
    return {"project_id": str(PROJECT), "labels": {"striatum": 1}, "channels": ["MRI"], "cases": listed}


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    (tmp_path / "project").mkdir()
    return Request(tmp_path / "project", PROJECT, tmp_path / "runs" / "r", "Dataset007_FLIP", minimum_cases=10)


def put(request: Request, manifest: dict[str, Any]) -> None:
    (request.project / "manifest.json").write_text(json.dumps(manifest))


def always() -> bool:
    return True


@pytest.mark.requirement("NNU-11")
def test_a_data_set_is_what_nnunet_reads_and_holds_each_case_once(request_of: Request) -> None:
    put(request_of, manifest_of(request_of.project))
    prepared = prepare(request_of, always)
    folder = request_of.run / "nnUNet_raw" / "Dataset007_FLIP"
    assert prepared.cases == CASES
    assert json.loads((folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "striatum": 1},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    assert sorted(file.name for file in (folder / "imagesTr").iterdir()) == [
        f"case{number:03d}_0000.nii.gz" for number in range(CASES)
    ]
    assert (folder / "labelsTr" / "case003.nii.gz").read_bytes() == b"label 3"


def test_preparing_again_changes_nothing_and_gives_the_same_answer(request_of: Request) -> None:
    put(request_of, manifest_of(request_of.project))
    first = prepare(request_of, always)
    (request_of.project / "manifest.json").unlink()
    assert prepare(request_of, always) == first


def test_the_digest_tells_data_sets_apart(request_of: Request, tmp_path: Path) -> None:
    manifest = manifest_of(request_of.project, CASES + 1)
    put(request_of, manifest)
    whole = prepare(request_of, always)
    put(request_of, manifest | {"cases": manifest["cases"][:-1]})
    part = prepare(
        Request(request_of.project, PROJECT, tmp_path / "runs" / "other", request_of.name, minimum_cases=10), always
    )
    assert whole.digest != part.digest


def without_label(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["cases"][4]["label"] = None
    return manifest


def with_other_content(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["cases"][4]["images"][0]["sha256"] = "0" * 64
    return manifest


def with_lost_file(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["cases"][4]["images"][0]["path"] = "images/lost.nii.gz"
    return manifest


def that_leaves_its_folder(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["cases"][4]["images"][0]["path"] = "../other/images/case004.nii.gz"
    return manifest


def of_another_project(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest | {"project_id": str(UUID(int=6))}


def with_nine_cases(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest | {"cases": manifest["cases"][:9]}


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (without_label, "label-missing"),
        (with_other_content, "digest-differs"),
        (with_lost_file, "file-missing"),
        (that_leaves_its_folder, "manifest-not-valid"),
        (of_another_project, "manifest-not-valid"),
        (with_nine_cases, "too-few-cases"),
    ],
)
def test_data_that_can_not_be_trained_on_are_refused_and_leave_nothing(
    request_of: Request, spoilt: Any, reason: str
) -> None:
    put(request_of, spoilt(manifest_of(request_of.project)))
    with pytest.raises(CannotPrepare) as refusal:
        prepare(request_of, always)
    assert refusal.value.reason == reason
    assert "case004" not in str(refusal.value)
    assert not request_of.run.exists() or list(request_of.run.iterdir()) == []


def test_a_project_without_images_is_refused(request_of: Request) -> None:
    with pytest.raises(CannotPrepare) as refusal:
        prepare(request_of, always)
    assert refusal.value.reason == "images-missing"


@pytest.mark.requirement("RUN-6")
def test_preparing_stops_between_two_files_when_nobody_waits_for_it(request_of: Request) -> None:
    put(request_of, manifest_of(request_of.project))
    calls: list[int] = []

    def twice() -> bool:
        calls.append(1)
        return len(calls) <= 2

    with pytest.raises(NotWanted):
        prepare(request_of, twice)
    assert len(calls) == 3
    assert list(request_of.run.iterdir()) == []


@pytest.mark.requirement("NNU-8")
def test_a_data_set_to_predict_holds_cases_without_a_label_in_a_folder_of_their_own(request_of: Request) -> None:
    manifest = manifest_of(request_of.project)
    manifest["cases"][3]["label"] = None
    put(request_of, manifest)
    prepared = prepare(replace(request_of, unlabelled=True), always)
    folder = request_of.run / "nnUNet_raw" / "Dataset007_FLIP"
    assert prepared.cases == CASES
    assert [file.name for file in (folder / "imagesTs").iterdir()] == ["case003_0000.nii.gz"]
    assert len(list((folder / "imagesTr").iterdir())) == len(list((folder / "labelsTr").iterdir())) == CASES - 1


_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=64k small "$1" && exec "$0" -c '
import sys, uuid
from pathlib import Path
from flip_trainer_node.dataset import CannotPrepare, Request, prepare
project, project_id, disk = Path(sys.argv[1]), uuid.UUID(sys.argv[2]), Path(sys.argv[3])
try:
    prepare(Request(project, project_id, disk / "r", "Dataset007_FLIP", 10), lambda: True)
except CannotPrepare as refusal:
    print(refusal.reason, len(list((disk / "r").iterdir())))
' "$2" "$3" "$1"
"""


def test_a_full_disk_is_a_reason_to_refuse_and_leaves_nothing_half_done(request_of: Request, tmp_path: Path) -> None:
    manifest = manifest_of(request_of.project)
    large = request_of.project / manifest["cases"][0]["images"][0]["path"]
    large.write_bytes(bytes(2**20))
    manifest["cases"][0]["images"][0]["sha256"] = hashlib.sha256(large.read_bytes()).hexdigest()
    put(request_of, manifest)
    (tmp_path / "disk").mkdir()
    in_own_namespace = ["/usr/bin/unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", _ON_A_SMALL_DISK]
    told = subprocess.run(
        [*in_own_namespace, sys.executable, str(tmp_path / "disk"), str(request_of.project), str(PROJECT)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "disk-full 0\n"
