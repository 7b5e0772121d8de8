"""The ledger's routes. Each reading of the ledger is itself said."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from flip_chassis.http import Admin, Reading, WorkOfRequest
from flip_chassis.refusal import Invalid
from flip_contracts.audit import LedgerExported, LedgerRead
from flip_contracts.base import REGISTRY, ProjectId, Sha256
from flip_contracts.ledger import Terms
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flip_audit import store
from flip_audit.exports import Exporter
from flip_audit.keys import as_pem

router = APIRouter(tags=["audit"])


class Narrowed(BaseModel):
    """What narrows a search or an export. An unknown term is refused: to ignore it would widen what is found."""

    model_config = ConfigDict(extra="forbid")

    project_id: ProjectId | None = None
    actor: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    type: Annotated[list[str], Field(max_length=100)] = []
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def terms(self) -> Terms:
        """The terms. Raises Invalid."""
        for name in self.type:
            if name not in REGISTRY:
                raise Invalid("type-not-known", f"No message has the type {name[:100]!r}.", field="type")
        if self.since and self.until and self.since >= self.until:
            raise Invalid("time-not-valid", "`until` must be later than `since`.", field="until")
        return Terms(
            project_id=self.project_id,
            actor=self.actor,
            types=tuple(sorted(set(self.type))),
            since=self.since,
            until=self.until,
        )


class Search(Narrowed):
    """A page of a search."""

    after: Annotated[str | None, Field(description="`next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200


class Entry(BaseModel):
    """One thing that was said, and its place in the chain."""

    position: int
    prev: Sha256
    hash: Sha256
    event_id: UUID
    type: str
    topic: str
    key: str
    source: str
    stream_version: int
    time: datetime
    heard_at: datetime
    actor: str
    correlation_id: UUID
    causation_id: UUID | None
    project_id: UUID | None
    body: dict[str, Any]


class Page(BaseModel):
    """Entries in the order in which they were said, and where to go on."""

    entries: list[Entry]
    next: str | None


async def _exporter(request: Request) -> Exporter:
    return request.app.state.exporter


OurExporter = Annotated[Exporter, Depends(_exporter)]


@router.get("/entries")
async def entries(admin: Admin, work: WorkOfRequest, asked: Annotated[Search, Query()]) -> Page:
    """Search the ledger by project, actor, type and time; oldest first, by the time when it was said."""
    terms = asked.terms()
    rows = await store.search(work.db, terms, read_cursor(asked.after), asked.limit)
    await work.say(LedgerRead(reader=admin.user_id, entries=len(rows), **_told(terms)))
    last = rows[-1] if len(rows) == asked.limit else None
    return Page(
        entries=[Entry.model_validate(store.shown(row)) for row in rows],
        next=f"{last['time'].isoformat()}~{last['position']}" if last else None,
    )


@router.get("/export", response_class=StreamingResponse)
async def export(
    admin: Admin, work: WorkOfRequest, asked: Annotated[Narrowed, Query()], exporter: OurExporter
) -> StreamingResponse:
    """The entries that fit, or the whole ledger, as a zip that verifies itself; recorded before its first byte."""
    terms = asked.terms()
    await work.say(LedgerExported(reader=admin.user_id, **_told(terms)))
    name = "selection" if terms.narrow else "ledger"
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''flip-{name}.zip"}
    return StreamingResponse(await exporter.export(terms, admin.user_id), media_type="application/zip", headers=headers)


@router.get("/keys", response_class=Response)
async def keys(_: Admin, db: Reading) -> Response:
    """The public keys that sign the ledger, in PEM, the newest last."""
    found = (await store.keys(db)).keys
    pem = b"".join(as_pem(bytes.fromhex(key.public_key)) for key in found)
    headers = {"Content-Disposition": "attachment; filename*=UTF-8''flip-ledger-keys.pem"}
    return Response(pem, media_type="application/x-pem-file", headers=headers)


def _told(terms: Terms) -> dict[Literal["project_id", "actor", "types", "since", "until"], Any]:
    return {
        "project_id": terms.project_id,
        "actor": terms.actor,
        "types": frozenset(terms.types),
        "since": terms.since,
        "until": terms.until,
    }


def read_cursor(text: str | None) -> tuple[datetime, int] | None:
    """The place that `next` names. Raises Invalid."""
    if text is None:
        return None
    time, _, position = text.partition("~")
    try:
        return datetime.fromisoformat(time), int(position)
    except ValueError as error:
        raise Invalid("cursor-not-valid", "Use `next` of the page before.", field="after") from error
