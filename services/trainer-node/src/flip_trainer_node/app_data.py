"""Builds what a researcher's app reads at a Trust: the frozen cohort as a table, and the images and labels of its
studies. The layout is `flip.data`'s.

A study goes by its case's name, which is what the app knows as its accession id: the number itself stays in the
cohort's own database.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from flip_contracts.base import ProjectId, Sha256
from flip_contracts.imaging import study_digest

from flip_trainer_node.preparing import CannotPrepare, ListedCase, NotWanted, Prepared, once, read_manifest, take, write

FOLDER = Path("app_data")
_ACCESSION = "accession_id"


@dataclass(frozen=True, slots=True)
class Study:
    """A study of the frozen cohort, with what the query says of it: rows by the names of its columns."""

    accession_number: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be built: from the project's folder, under the run's folder, of the studies of its frozen cohort."""

    project: Path
    project_id: ProjectId
    run: Path
    minimum_cases: int
    query_digest: Sha256
    studies: Sequence[Study]


def prepare(request: Request, go_on: Callable[[], bool]) -> Prepared:
    """Build the data, or find them built: of each study whose image is there. Blocks while files are read.

    Raises CannotPrepare, or NotWanted when `go_on` says no.
    """
    return once(request.run, FOLDER, request.project_id, lambda draft: _fill(draft, request, go_on))


def _fill(draft: Path, request: Request, go_on: Callable[[], bool]) -> Prepared:
    studies = {study_digest(request.project_id, study.accession_number): study for study in request.studies}
    listed = read_manifest(request.project, request.project_id).cases
    if any(case.study is None for case in listed):
        raise CannotPrepare("dataset-has-no-studies")
    cases = [case for case in listed if case.study in studies]
    if len(cases) < request.minimum_cases:
        raise CannotPrepare("too-few-cases")
    draft.mkdir()
    table = _table([(case.case, studies[case.study].rows) for case in cases if case.study is not None])
    write(draft / "cohort.csv", table)
    record = {"project_id": str(request.project_id), "query_sha256": request.query_digest}
    write(draft / "project.json", orjson.dumps(record))
    digest = hashlib.sha256(table)
    for case in cases:
        if not go_on():
            raise NotWanted
        digest.update(_take_case(request.project, case, draft / "images" / case.case))
    return Prepared(len(cases), digest.hexdigest())


def _take_case(project: Path, case: ListedCase, folder: Path) -> bytes:
    """Lay a study's files into its folder; what stands for them in the digest of the data."""
    folder.mkdir(parents=True)
    [image] = case.images
    take(project, image, folder / f"input_{case.case}.nii.gz")
    if case.label is not None:
        take(project, case.label, folder / f"label_{case.case}.nii.gz")
    return f"{case.case} {image.sha256} {case.label.sha256 if case.label else ''}\n".encode()


def _table(studies: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> bytes:
    """The cohort as CSV (RFC 4180): a line for each row of each study, and one for a study of which there are none."""
    columns = sorted({column for _, rows in studies for row in rows for column in row})
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow([_ACCESSION, *columns])
    for case, rows in studies:
        lines.writerows([case, *(_cell(row.get(column)) for column in columns)] for row in rows or [{}])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as a cell has it: text as it is, nothing for none, all else as JSON writes it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
