"""The ledger's routes. Each read of the ledger is itself said."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from flip_chassis.http import Admin, WorkOfRequest
from flip_chassis.refusal import Invalid
from flip_contracts.audit import LedgerRead
from flip_contracts.base import ProjectId
from pydantic import BaseModel

from flip_audit import store

router = APIRouter(tags=["audit"])

Cursor = Annotated[str | None, Query(description="`next` of the page before.")]


class Entry(BaseModel):
    """One thing that was said."""

    number: int
    event_id: UUID
    type: str
    topic: str
    key: str
    source: str
    stream_version: int
    time: datetime
    actor: str
    correlation_id: UUID
    causation_id: UUID | None
    project_id: UUID | None
    body: dict[str, Any]


class Page(BaseModel):
    """Entries in the order in which they were said, and where to go on."""

    entries: list[Entry]
    next: str | None


@router.get("/entries")
async def entries(
    admin: Admin,
    work: WorkOfRequest,
    project_id: ProjectId | None = None,
    actor: str | None = None,
    type: Annotated[list[str] | None, Query()] = None,  # noqa: A002
    since: datetime | None = None,
    until: datetime | None = None,
    after: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Page:
    """Search the ledger by project, actor, type and time."""
    terms = store.Terms(project_id, actor, frozenset(type or ()), since, until)
    rows = await store.search(work.db, terms, read_cursor(after), limit)
    await work.say(LedgerRead(reader=admin.user_id, project_id=project_id, types=terms.types, entries=len(rows)))
    found = [Entry.model_validate(store.entry(row)) for row in rows]
    return Page(entries=found, next=f"{found[-1].time.isoformat()}~{found[-1].number}" if len(found) == limit else None)


def read_cursor(text: str | None) -> tuple[datetime, int] | None:
    """The place that `next` names. Raises Invalid."""
    if text is None:
        return None
    time, _, number = text.partition("~")
    try:
        return datetime.fromisoformat(time), int(number)
    except ValueError as error:
        raise Invalid("cursor-not-valid", "Use `next` of the page before.", field="after") from error
