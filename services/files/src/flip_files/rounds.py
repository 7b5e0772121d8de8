"""The routes of a run's rounds."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import StreamingResponse
from flip_chassis.access import known_project, may_see
from flip_chassis.http import AnyUser, Reading, WorkOfRequest
from flip_chassis.refusal import NotFound
from flip_contracts.base import RunId, Sha256
from pydantic import BaseModel

from flip_files import domain, store
from flip_files.store import Course

router = APIRouter(tags=["results"])


class RoundView(BaseModel):
    """The weights after a round of a run; rounds count from 0. `digest` is over the tensors, the other over the file.

    `score` and `best` are as the run judges its rounds; an app may give none. `kept_until` is when the weights of an
    ended run are deleted; none where they stay for good, and while the run is under way.
    """

    round: int
    attempt: int
    digest: Sha256
    file_digest: Sha256 | None
    size_bytes: int | None
    score: float | None
    best: bool
    at: datetime
    deleted: bool
    kept_until: datetime | None


async def _seen_course(run_id: RunId, db: Reading, actor: AnyUser) -> Course:
    course = await store.course(db, run_id)
    if not course.rounds.stored:
        raise NotFound("rounds-not-found", "The run has no completed round yet.")
    may_see(await known_project(db, course.rounds.stored[0].project_id), actor)
    return course


SeenCourse = Annotated[Course, Depends(_seen_course)]


@router.get("/results/{run_id}/rounds")
async def list_rounds(course: SeenCourse, request: Request) -> list[RoundView]:
    """The completed rounds of the run, and which of them can still be downloaded (RUN-9)."""
    counting, staying, best = course.rounds.counting, course.rounds.staying, course.rounds.best
    until = course.ended_at + request.app.state.rounds_kept_for if course.ended_at else None
    return [
        RoundView.model_validate(
            {
                **course.rows[each.object],
                "best": number == best,
                "kept_until": None if number in staying else until,
            }
        )
        for number, each in counting.items()
    ]


@router.get("/results/{run_id}/rounds/{number}/download", response_class=StreamingResponse)
async def download_round(
    run_id: RunId,
    number: Annotated[int, Path(ge=0)],
    request: Request,
    actor: AnyUser,
    seen: SeenCourse,
    work: WorkOfRequest,
) -> StreamingResponse:
    """The weights after a round, in NumPy's `.npz`. The download is recorded before the first byte leaves."""
    async with work.on(domain.RESULTS, run_id) as results:
        course = await store.course(work.db, run_id)  # nothing is deleted while the run's stream is held
        asked, downloaded = domain.download_round(course.rounds, run_id, number, actor.user_id)
        results.record(downloaded)
    row = course.rows[asked.object]
    name = f"round-{number:05d}_{run_id}.npz"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    if row["size_bytes"] is not None:
        headers |= {"Content-Length": str(row["size_bytes"]), "Digest": f"sha-256={row['file_digest']}"}
    chunks = request.app.state.objects.read(asked.object)
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)
