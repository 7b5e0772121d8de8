"""What does it cost a write over HTTP to say what happened?"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI
from flip_chassis.access import user_handlers
from flip_chassis.aggregate import Aggregate
from flip_chassis.http import Admin, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.service import backbone
from flip_chassis.testing import People, eventually, invited, speaking
from flip_contracts.base import Message, ProjectId
from flip_contracts.projects import ProjectEdited
from flip_contracts.topics import PROJECT
from flip_local.layout import CHECKOUT

from bench.ground import MIGRATIONS, Ground
from bench.measuring import Series, in_turns
from bench.report import Chapter, Scale, share
from bench.workload import SHOW_EDIT, edit, show_edit

_SECONDS = 5.0
_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Edited:
    """How often a project was edited."""

    times: int = 0


def _evolve(state: Edited, event: Message) -> Edited:
    return Edited(state.times + 1) if isinstance(event, ProjectEdited) else state


EDITED = Aggregate(PROJECT, Edited(), _evolve)
router = APIRouter()


@router.post("/{project_id}/said")
async def said(project_id: ProjectId, actor: Admin, work: WorkOfRequest) -> int:
    """Edit, and say so: the event and the table in one transaction."""
    async with work.on(EDITED, project_id) as project:
        project.record(edit(1, project_id))
    return project.state.times


@router.post("/{project_id}/kept")
async def kept(project_id: ProjectId, actor: Admin, work: WorkOfRequest) -> int:
    """Edit, and tell nobody: the table alone."""
    event = edit(1, project_id)
    async with work.db.transaction():
        await work.db.execute(SHOW_EDIT, event.project_id, event.name)
    return 1


async def run(ground: Ground, scale: Scale) -> Chapter:
    """The same route with and without the event log, on one running service."""
    seconds = max(1.0, _SECONDS * scale.size)
    async with _service(ground) as (port, token):
        with_event, without = await in_turns(
            scale.rounds, (lambda: _load(port, "said", token, seconds), lambda: _load(port, "kept", token, seconds))
        )
    settings = f"{_CONNECTIONS} connections, one worker"
    with_series = Series("write with event", settings, "/s", with_event)
    without_series = Series("write without event", settings, "/s", without)
    return Chapter(
        "A write over HTTP",
        f"New projects for {seconds:.0f} s a round, from authentication to the committed answer. With the event: lock"
        " and load of the stream, append, projection, and the relay that publishes it in the same process. Without: the"
        " projection's statement alone in a transaction.",
        (with_series, without_series),
        (share(with_series, without_series, 85),),
    )


@asynccontextmanager
async def _service(ground: Ground) -> AsyncGenerator[tuple[int, str]]:
    """A service that listens: its port, and the token of an admin whom it knows."""
    people = People()
    arrived, activated = invited("admin", f"{uuid7()}@flip.example")
    async with (
        ground.database() as database,
        speaking(ground.kafka.as_principal("service.auth"), "flip/hub/auth") as auth,
    ):
        for event in (arrived, activated):
            await auth.say(event)
        token = people.token(arrived.user_id, expires_in_s=3600)
        with people.published() as jwks_url:
            settings = ground.saying(database, jwks_url)
            async with (
                backbone(settings, MIGRATIONS, [*user_handlers, show_edit]) as stands,
                _listening(stands.http(router)) as port,
            ):
                await _known(port, token)
                yield port, token


@asynccontextmanager
async def _listening(app: FastAPI) -> AsyncGenerator[int]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def _known(port: int, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as http:

        async def known() -> bool:
            return (await http.post(f"/api/projects/{uuid7()}/kept")).status_code == 200

        await eventually(known)


async def _load(port: int, what: str, token: str, seconds: float) -> float:
    arguments = (str(port), f"/api/projects/{{id}}/{what}", token, str(_CONNECTIONS), str(seconds))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *arguments, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the load ended with {child.returncode}")
    return float(out)
