"""The routes of a Trust's operator, on the Trust's own network: studies by name, labels, data sets, retries, the stop
switch."""

import asyncio
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from flip_chassis.database import Connection, Row
from flip_chassis.http import OPERATOR_ONLY, Reading, WorkOfRequest
from flip_chassis.refusal import Invalid, NotFound, require
from flip_contracts.base import ProjectId, Sha256
from flip_contracts.imaging import StudyCounts
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from flip_imaging import domain, store
from flip_imaging.domain import STUDIES
from flip_imaging.labels import CoverageReport, bring_labels, read_manifest
from flip_imaging.registration import DatasetReport, register_dataset, withdraw_dataset
from flip_imaging.reports import tell_import
from flip_imaging.trust import TrustSide

COPY_BYTES = 1 << 20
LARGEST_MANIFEST_BYTES = 8 << 20
LABEL_NAMES = TypeAdapter(dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[int, Field(ge=1, le=255)]])


class TrustDataset(BaseModel):
    """The ready data set that stands in for a project's studies."""

    name: str
    cases: int
    channels: list[str]
    labels: dict[str, int]
    dataset_sha256: Sha256


class TrustProject(BaseModel):
    """A project whose images this Trust holds, in exact numbers: of its studies, and of a data set in their place."""

    project_id: ProjectId
    state: str
    counts: StudyCounts
    labelled: int
    labels: dict[str, int]
    dataset: TrustDataset | None


class TrustStudy(BaseModel):
    """A study of a project, for the eyes of the Trust's operator."""

    study_id: UUID
    accession_id: str
    case: str
    state: str
    attempts: int
    reason: str | None
    due_at: datetime
    labelled: bool
    deidentification: dict[str, Any] | None


class DatasetName(BaseModel):
    """Which data set, by the name of its folder below `FLIP_DATASETS`."""

    model_config = ConfigDict(extra="forbid")

    name: str


class Pulling(BaseModel):
    """Whether this service may ask the PACS for studies."""

    allowed: bool


def _side(request: Request) -> TrustSide:
    return request.app.state.side


Side = Annotated[TrustSide, Depends(_side)]
"""The Trust's role that the routes work on."""


router = APIRouter(prefix="/trust", dependencies=[OPERATOR_ONLY])


@router.get("/projects")
async def list_projects(db: Reading) -> list[TrustProject]:
    """The projects whose images this Trust holds."""
    rows = await db.fetch("SELECT project_id, state FROM imaging_project ORDER BY asked_at")
    return [await _project(db, row["project_id"], row["state"]) for row in rows]


@router.get("/projects/{project_id}/studies")
async def list_studies(project_id: ProjectId, db: Reading) -> list[TrustStudy]:
    """The project's studies, with what became of each."""
    return [_study(row) for row in await store.studies(db, project_id)]


@router.post("/projects/{project_id}/studies/{study_id}/retry", status_code=202)
async def retry_study(project_id: ProjectId, study_id: UUID, side: Side, work: WorkOfRequest) -> Pulling:
    """Start a failed study again, with all its attempts; tells whether the PACS may be asked at all."""
    async with work.db.transaction():
        require(await store.lock_project(work.db, project_id), "project-not-active")
        async with work.on(STUDIES, study_id) as study:
            if study.state.project_id != project_id:
                raise NotFound("study-not-found")
            study.record(domain.retry(study.state))
        await tell_import(work, project_id, side.settings.disclosure_threshold)
    return Pulling(allowed=await store.pulling_allowed(work.db))


@router.post("/projects/{project_id}/labels")
async def upload_labels(
    project_id: ProjectId,
    side: Side,
    work: WorkOfRequest,
    manifest: Annotated[UploadFile, File(description="CSV with the columns accession_id and file")],
    files: Annotated[list[UploadFile], File(description="DICOM SEG or NIfTI label maps")],
    labels: Annotated[str, Form(description="JSON: the value of each structure in NIfTI label maps")] = "{}",
    dry_run: Annotated[bool, Query(description="Check everything, change nothing")] = False,
) -> CoverageReport:
    """Bring labels for the project's studies, all or none; the report tells what they cover."""
    names = _label_names(labels)
    if (manifest.size or 0) > LARGEST_MANIFEST_BYTES:
        raise Invalid("manifest-not-valid", "The manifest is larger than 8 MiB.", field="manifest")
    with side.folders.scratch() as scratch:
        received = await asyncio.to_thread(_receive, files, scratch)
        table = read_manifest(await manifest.read(), received)
        return await bring_labels(side, work, project_id, table, received, names, scratch, dry_run=dry_run)


@router.post("/projects/{project_id}/dataset")
async def set_dataset(
    project_id: ProjectId,
    body: DatasetName,
    side: Side,
    work: WorkOfRequest,
    dry_run: Annotated[bool, Query(description="Check everything, change nothing")] = False,
) -> DatasetReport:
    """Let a ready nnU-Net data set stand in for the project's studies; the report tells what it holds."""
    return await register_dataset(side, work, project_id, body.name, dry_run=dry_run)


@router.delete("/projects/{project_id}/dataset", status_code=204)
async def delete_dataset(project_id: ProjectId, side: Side, work: WorkOfRequest) -> None:
    """Give the data set up: the project's studies count again."""
    await withdraw_dataset(side, work, project_id)


@router.get("/pulling")
async def pulling(db: Reading) -> Pulling:
    """Whether this service may ask the PACS."""
    return Pulling(allowed=await store.pulling_allowed(db))


@router.put("/pulling")
async def set_pulling(body: Pulling, db: Reading) -> Pulling:
    """Turn the stop switch. A study that is on its way is brought to its end."""
    await store.allow_pulling(db, allowed=body.allowed)
    return body


async def _project(db: Connection, project_id: ProjectId, state: str) -> TrustProject:
    cases = await store.cases(db, project_id)
    dataset = await store.dataset(db, project_id)
    return TrustProject(
        project_id=project_id,
        state=state,
        counts=StudyCounts(**await store.counts(db, project_id)),
        labelled=sum(case.label_sha256 is not None for case in cases),
        labels=await store.labels(db, project_id),
        dataset=None if dataset is None else TrustDataset.model_validate(dataset, from_attributes=True),
    )


def _study(row: Row) -> TrustStudy:
    return TrustStudy(
        study_id=row["study_id"],
        accession_id=row["accession_number"],
        case=row["case_name"],
        state=row["state"],
        attempts=row["attempts"],
        reason=row["reason"],
        due_at=row["due_at"],
        labelled=row["label_sha256"] is not None,
        deidentification=row["report"],
    )


def _label_names(labels: str) -> dict[str, int]:
    try:
        names = LABEL_NAMES.validate_json(labels)
    except ValidationError:
        raise Invalid("labels-not-valid", "Send a JSON object of names and values 1 to 255.", field="labels") from None
    if len(set(names.values())) < len(names):
        raise Invalid("labels-not-valid", "Two structures have the same value.", field="labels")
    return names


def _receive(files: list[UploadFile], scratch: Path) -> dict[str, Path]:
    """Copy the uploads, block by block, to files whose names are ours."""
    received: dict[str, Path] = {}
    for number, upload in enumerate(files):
        name = upload.filename or ""
        if not name or name in received:
            raise Invalid("files-not-valid", "Each file needs a name of its own.", field="files", file=name)
        received[name] = scratch / f"{number:06d}"
        with received[name].open("wb") as target:
            shutil.copyfileobj(upload.file, target, COPY_BYTES)
    return received
