"""The routes of a model's files."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from flip_chassis.access import known_project, may_see, may_work_on
from flip_chassis.database import Connection
from flip_chassis.http import AnyUser, Reading, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Invalid, NotFound, Refused, Throttled, require
from flip_contracts.apps import REQUIRED_FILES, FileName, missing_files, object_of_file
from flip_contracts.base import ModelId, Sha256
from flip_contracts.files import Finding, ModelFileUploaded
from flip_contracts.projects import Framework, Job
from pydantic import BaseModel, ConfigDict

from flip_files import domain, store
from flip_files.domain import Model
from flip_files.objects import Objects, Stored, TooLarge
from flip_files.settings import FilesSettings

router = APIRouter(tags=["files"])
_RETRY_AFTER_S = 5


class FileView(BaseModel):
    """A file of a model and what its scan said. A refused one has the reason; `findings` are calls worth a look."""

    model_config = ConfigDict(extra="ignore")

    path: FileName
    status: Literal["scanning", "accepted", "refused"]
    digest: Sha256
    size_bytes: int
    reason: str | None
    detail: str
    findings: list[Finding]
    at: datetime


class RequiredFile(BaseModel):
    """A file without which the model can't be trained, and whether it is there."""

    path: FileName
    present: bool


class FilesView(BaseModel):
    """A model's files, and those that it needs by its framework and job (FILE-3)."""

    framework: Framework
    job: Job
    required: list[RequiredFile]
    files: list[FileView]


@dataclass(slots=True)
class Uploads:
    """Takes uploads into the object store, as many at once as the service can bear."""

    objects: Objects
    settings: FilesSettings
    under_way: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.under_way = asyncio.Semaphore(self.settings.uploads_at_once)

    async def take(self, name: str, declared_bytes: int, chunks: AsyncIterator[bytes]) -> Stored:
        """Store what comes. Raises Throttled, Invalid where it is too large, and as the store and `chunks` do."""
        if self.under_way.locked():
            raise Throttled("too-many-uploads", "Try again in a moment.", retry_after_s=_RETRY_AFTER_S)
        most = self.settings.most_file_bytes
        async with self.under_way:
            try:
                if declared_bytes > most:
                    raise TooLarge
                return await self.objects.take(name, chunks, most)
            except TooLarge:
                detail = f"A file has at most {most} bytes."
                raise Invalid("file-too-large", detail, field="path", most_bytes=most) from None


async def _existing(model_id: ModelId, db: Connection) -> Model:
    model = await store.model(db, model_id)
    if model is None:
        raise NotFound("model-not-found", "There is no such model, or you may not see it.")
    return model


async def _seen_model(model_id: ModelId, db: Reading, actor: AnyUser) -> Model:
    model = await _existing(model_id, db)
    may_see(await known_project(db, model.project_id), actor)
    return model


async def _worked_model(model_id: ModelId, db: Reading, actor: AnyUser) -> Model:
    model = await _existing(model_id, db)
    may_work_on(await known_project(db, model.project_id), actor)
    return model


SeenModel = Annotated[Model, Depends(_seen_model)]
WorkedModel = Annotated[Model, Depends(_worked_model)]
FilePath = Annotated[FileName, Path()]


@router.get("/models/{model_id}/files")
async def list_files(model: SeenModel, db: Reading) -> FilesView:
    """The model's files, with those that it still needs before it can be trained."""
    files = [FileView.model_validate(dict(row)) for row in await store.model_files(db, model.model_id)]
    required = REQUIRED_FILES[model.framework] if model.job == "custom" else ()
    missing = missing_files(model.framework, [file.path for file in files])
    return FilesView(
        framework=model.framework,
        job=model.job,
        required=[RequiredFile(path=path, present=path not in missing) for path in required],
        files=files,
    )


@router.put("/models/{model_id}/files/{path:path}", status_code=202)
async def put_file(
    path: FilePath, request: Request, actor: AnyUser, model: WorkedModel, work: WorkOfRequest
) -> FileView:
    """Upload a file, new or in the place of an earlier one; the body is the file. Nothing uses it before its scan."""
    domain.require_custom(model)
    uploads: Uploads = request.app.state.uploads
    name = f"uploads/{uuid7()}"
    stored = await uploads.take(name, int(request.headers.get("content-length", 0)), request.stream())
    uploaded = ModelFileUploaded(
        model_id=model.model_id,
        project_id=model.project_id,
        path=path,
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        object=name,
    )
    try:
        async with work.on(domain.MODEL_FILES, model.model_id) as files:
            files.record(domain.upload(files.state, uploaded, uploads.settings.most_files))
            await store.await_scan(work.db, uploaded)
    except Refused:
        await uploads.objects.remove(name)
        raise
    return FileView.model_validate(dict(await store.model_file(work.db, model.model_id, path) or {}))


@router.get("/models/{model_id}/files/{path:path}", response_class=StreamingResponse)
async def download_file(path: FilePath, request: Request, model: SeenModel, db: Reading) -> StreamingResponse:
    """A file as it was uploaded; only one that its scan accepted."""
    row = await store.model_file(db, model.model_id, path)
    if row is None:
        raise NotFound("file-not-found", "The model has no such file.")
    require(row["status"] == "accepted", "file-withheld", "Its scan has not accepted it.", status=row["status"])
    headers = {
        "Content-Length": str(row["size_bytes"]),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(PurePosixPath(path).name)}",
        "Digest": f"sha-256={row['digest']}",
        "X-Content-Type-Options": "nosniff",
    }
    chunks = request.app.state.objects.read(object_of_file(model.model_id, row["digest"]))
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.delete("/models/{model_id}/files/{path:path}", status_code=204, response_class=Response)
async def remove_file(path: FilePath, actor: AnyUser, model: WorkedModel, work: WorkOfRequest) -> None:
    """Take a file out of the model. Runs that were started with it keep it."""
    async with work.on(domain.MODEL_FILES, model.model_id) as files:
        files.record(domain.remove(files.state, model, path))
