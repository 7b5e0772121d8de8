"""What a researcher's app finds at a Trust: its cohort and the images of its studies, and nobody's accession number."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flip_contracts.base import ProjectId
from flip_contracts.imaging import study_digest
from flip_trainer_node.app_data import Request, Study, prepare
from flip_trainer_node.preparing import CannotPrepare, NotWanted

pytestmark = pytest.mark.requirement("RUN-10")

PROJECT = ProjectId(UUID(int=5))
QUERY = "d" * 64
CASES = 10


def accession(number: int) -> str:
    return f"RAX-{number:04d}"


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    """A project of ten studies with images; the last one has no label."""
    project, listed = tmp_path / "project", list[dict[str, Any]]()
    for number in range(CASES):
        name = f"C{number:03d}"
        case: dict[str, Any] = {"case": name, "study": study_digest(PROJECT, accession(number)), "label": None}
        for kind in ("image", "label") if number < CASES - 1 else ("image",):
            file = project / f"{kind}s" / f"{name}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{kind} {number}".encode())
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            case[kind] = {"path": str(file.relative_to(project)), "sha256": digest}
        case["images"] = [case.pop("image")]
        listed.append(case)
    manifest = {"project_id": str(PROJECT), "labels": {"lesion": 1}, "channels": ["MRI"], "cases": listed}
    (project / "manifest.json").write_text(json.dumps(manifest))
    studies = [Study(accession(number), [{"sex": "F", "year_of_birth": 1950 + number}]) for number in range(CASES)]
    return Request(project, PROJECT, tmp_path / "runs" / "r", CASES, QUERY, studies)


def always() -> bool:
    return True


def table(request: Request) -> list[dict[str, str]]:
    with (request.run / "app_data" / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_study_has_its_line_and_its_folder_under_the_name_of_its_case(request_of: Request) -> None:
    assert prepare(request_of, always).cases == CASES
    assert table(request_of)[3] == {"accession_id": "C003", "sex": "F", "year_of_birth": "1953"}
    images = request_of.run / "app_data" / "images"
    assert (images / "C003" / "input_C003.nii.gz").read_bytes() == b"image 3"
    assert (images / "C003" / "label_C003.nii.gz").read_bytes() == b"label 3"
    assert [file.name for file in (images / "C009").iterdir()] == ["input_C009.nii.gz"]
    record = json.loads((request_of.run / "app_data" / "project.json").read_bytes())
    assert record == {"project_id": str(PROJECT), "query_sha256": QUERY}


def test_no_accession_number_is_anywhere_in_what_an_app_reads(request_of: Request) -> None:
    prepare(request_of, always)
    for file in [each for each in request_of.run.rglob("*") if each.is_file()]:
        assert b"RAX-" not in file.read_bytes()
        assert "RAX-" not in str(file.relative_to(request_of.run))


def test_a_study_has_a_line_for_each_row_of_the_query_and_one_where_there_is_none(request_of: Request) -> None:
    rows = [{"codes": [1, 2], "name": 'a "b", c'}, {"codes": None, "name": "d"}]
    studies = [Study(accession(0), rows), *(Study(each.accession_number, []) for each in request_of.studies[1:])]
    assert prepare(replace(request_of, studies=studies), always).cases == CASES
    assert table(request_of)[:3] == [
        {"accession_id": "C000", "codes": "[1,2]", "name": 'a "b", c'},
        {"accession_id": "C000", "codes": "", "name": "d"},
        {"accession_id": "C001", "codes": "", "name": ""},
    ]


def test_a_study_that_is_no_longer_in_the_cohort_or_has_no_image_is_left_out(request_of: Request) -> None:
    gone = [*request_of.studies[1:], Study("RAX-9999", [])]
    assert prepare(replace(request_of, studies=gone, minimum_cases=9), always).cases == CASES - 1
    assert {line["accession_id"] for line in table(request_of)} == {f"C{number:03d}" for number in range(1, CASES)}


def test_fewer_studies_than_the_trust_tells_of_are_refused_and_leave_nothing(request_of: Request) -> None:
    with pytest.raises(CannotPrepare, match="too-few-cases"):
        prepare(replace(request_of, studies=request_of.studies[1:]), always)
    assert list(request_of.run.iterdir()) == []


def test_a_file_that_is_not_the_manifests_is_refused(request_of: Request) -> None:
    (request_of.project / "labels" / "C004.nii.gz").write_bytes(b"other")
    with pytest.raises(CannotPrepare, match="digest-differs"):
        prepare(request_of, always)
    assert list(request_of.run.iterdir()) == []


def test_preparing_again_gives_the_same_answer_and_other_rows_another_digest(request_of: Request) -> None:
    first = prepare(request_of, always)
    assert prepare(replace(request_of, studies=()), always) == first
    other = replace(
        request_of, run=request_of.run / "other", studies=[*request_of.studies[1:], Study(accession(0), [])]
    )
    assert prepare(other, always).digest != first.digest


@pytest.mark.requirement("RUN-6")
def test_preparing_stops_between_two_studies_when_nobody_waits_for_it(request_of: Request) -> None:
    with pytest.raises(NotWanted):
        prepare(request_of, lambda: False)
    assert list(request_of.run.iterdir()) == []
