"""The routes of results."""

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from flip_chassis.access import known_project, may_see
from flip_chassis.database import Row
from flip_chassis.http import AnyUser, Reading, WorkOfRequest
from flip_chassis.refusal import NotFound
from flip_contracts.base import ProjectId, RunId, Sha256
from pydantic import BaseModel

from flip_files import domain, store

router = APIRouter(tags=["results"])


class ResultView(BaseModel):
    """A run's results as they were judged."""

    run_id: RunId
    project_id: ProjectId
    status: str
    name: str
    digest: Sha256 | str
    size_bytes: int
    at: datetime


async def _seen_result(run_id: RunId, db: Reading, actor: AnyUser) -> Row:
    row = await store.result(db, run_id)
    if row is None:
        raise NotFound("results-not-found", "The run has no results yet.")
    may_see(await known_project(db, row["project_id"]), actor)
    return row


SeenResult = Annotated[Row, Depends(_seen_result)]


@router.get("/results/{run_id}")
async def look(row: SeenResult) -> ResultView:
    """What the results are and whether they can be downloaded."""
    return ResultView.model_validate(dict(row))


@router.get("/results/{run_id}/download", response_class=StreamingResponse)
async def download(
    run_id: RunId, request: Request, actor: AnyUser, row: SeenResult, work: WorkOfRequest
) -> StreamingResponse:
    """The results as one zip. The download is recorded before the first byte leaves."""
    async with work.on(domain.RESULTS, run_id) as result:
        result.record(domain.download(result.state, run_id, actor.user_id))
    headers = {
        "Content-Length": str(row["size_bytes"]),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row['name'])}",
        "Digest": f"sha-256={row['digest']}",
    }
    return StreamingResponse(
        request.app.state.objects.read(row["object"]), media_type="application/zip", headers=headers
    )
