"""The hub's routes: how far each Trust has come with a project's images."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from flip_chassis.http import Reading, SeenProject
from flip_contracts.base import ProjectId, ReasonCode, Released, Sha256, TrustCode
from flip_contracts.imaging import StudyCounts
from pydantic import BaseModel

router = APIRouter()


class RegisteredDataset(BaseModel):
    """A ready nnU-Net data set at the Trust; its digest names the content."""

    cases: Released
    channels: list[str]
    dataset_sha256: Sha256


class TrustStatus(BaseModel):
    """A project's images at one Trust. `failures` counts failed studies by reason; `labelled` is None before any.

    `dataset` stands in for the studies of the PACS, which then wait; it is None where images come from the PACS.
    """

    trust: TrustCode
    state: Literal["asked", "importing", "ready", "deleted"]
    counts: StudyCounts
    failures: dict[ReasonCode, Released]
    labelled: Released | None
    labels: dict[str, int]
    dataset: RegisteredDataset | None
    changed_at: datetime


class ProjectStatus(BaseModel):
    """A project's images at every Trust that was asked for them, by the Trust's code."""

    project_id: ProjectId
    trusts: list[TrustStatus]


@router.get("/projects/{project_id}")
async def project_status(project: SeenProject, db: Reading, trust: TrustCode | None = None) -> ProjectStatus:
    """How far each Trust, or the one asked for, has come with the project's images."""
    rows = await db.fetch(
        "SELECT trust, state, counts, failures, labelled, labels, dataset, changed_at FROM trust_imaging"
        " WHERE project_id = $1 AND ($2::text IS NULL OR trust = $2) ORDER BY trust",
        project.project_id,
        trust,
    )
    return ProjectStatus(project_id=project.project_id, trusts=[TrustStatus(**row) for row in rows])
