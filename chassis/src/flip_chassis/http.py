"""How a service answers over HTTP: problem documents (RFC 9457), request ids, health, and reading one's own writes.

A response that wrote something carries `Flip-Version: <topic>/<id>@<version>`. A client sends the last ones along as
`Flip-After`; a service that hears those streams waits for them, 2 s at most, then answers 503 with Retry-After.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import prometheus_client
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from flip_contracts.auth import Role
from flip_contracts.base import ProjectId
from flip_contracts.topics import USER
from starlette.exceptions import HTTPException

from flip_chassis.access import Actor, KnownProject, SigningKeys, actor_of, known_project, may_see, may_work_on
from flip_chassis.database import Connection, Pool
from flip_chassis.handlers import Handlers
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause
from flip_chassis.refusal import Behind, Forbidden, Refused, Unauthenticated
from flip_chassis.relay import Relay
from flip_chassis.settings import Settings
from flip_chassis.telemetry import REQUESTS, log, span, traceparent
from flip_chassis.work import Work

PROBLEM = "application/problem+json"
_PATIENCE_S = 2.0
_LOOK_AGAIN_S = 0.01
_MOST_TOKENS = 16

Check = Callable[[], Awaitable[bool]]
Figures = Callable[[], Awaitable[Mapping[str, float]]]
"""What stands beside the checks: ages in seconds, counts of records."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the routes of a service stand on."""

    settings: Settings
    pool: Pool
    handlers: Handlers
    relay: Relay
    keys: SigningKeys
    operator_token: str | None = None


# --- what a route may ask for -------------------------------------------------------------------------------------

_bearer = HTTPBearer(auto_error=False)


def _context(request: Request) -> Context:
    return request.app.state.context


async def _reading(request: Request) -> AsyncIterator[Connection]:
    async with _context(request).pool.acquire() as db:
        yield db


KnownContext = Annotated["Context", Depends(_context)]
"""What the routes of the service stand on."""
Reading = Annotated[Connection, Depends(_reading, scope="function")]
"""A connection for routes that only look; given back before the answer goes out, which may be a long stream."""


async def _actor(
    request: Request, db: Reading, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Actor:
    if bearer is None:
        raise Unauthenticated("token-missing", "Send an access token.")
    context = _context(request)
    claims = await context.keys.claims(bearer.credentials)
    await _wait_until_heard(context, db, [(f"{USER.name}/{claims.user_id}", claims.user_version)])
    actor = await actor_of(db, claims)
    request.state.actor = actor
    return actor


AnyUser = Annotated[Actor, Depends(_actor)]
"""Whoever is logged in."""


def allow(*roles: Role) -> Callable[[Actor], Awaitable[Actor]]:
    """A dependency that admits these roles only."""

    async def check(actor: AnyUser) -> Actor:
        if actor.role not in roles:
            raise Forbidden("role-not-allowed", f"This is for: {', '.join(roles)}.", role=actor.role)
        return actor

    return check


async def _only_operator(
    request: Request, db: Reading, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    context = _context(request)
    if context.settings.trust is None:
        await allow("admin")(await _actor(request, db, bearer))
        return
    known = context.operator_token
    if bearer is None or known is None or not hmac.compare_digest(bearer.credentials.encode(), known.encode()):
        raise Unauthenticated("token-not-valid", "Send the operator's token of this Trust.")
    request.state.actor = f"operator:{context.settings.trust}"


OPERATOR_ONLY = Depends(_only_operator)
"""Admits who runs the process: at the hub an admin, at a Trust whoever knows its operator's token."""
Researcher = Annotated[Actor, Depends(allow("researcher", "admin"))]
"""A researcher or an admin."""
Admin = Annotated[Actor, Depends(allow("admin"))]
"""An admin."""


async def _seen_project(project_id: ProjectId, db: Reading, actor: AnyUser) -> KnownProject:
    return may_see(await known_project(db, project_id), actor)


async def _worked_project(project_id: ProjectId, db: Reading, actor: AnyUser) -> KnownProject:
    return may_work_on(await known_project(db, project_id), actor)


SeenProject = Annotated[KnownProject, Depends(_seen_project)]
"""The project of the path's `project_id`, for those who may see it."""
WorkedProject = Annotated[KnownProject, Depends(_worked_project)]
"""The project of the path's `project_id`, for those who may change it."""


async def _work(request: Request, db: Reading) -> Work:
    context = _context(request)
    cause = Cause(
        actor=str(getattr(request.state, "actor", "anonymous")),
        time=datetime.now(UTC),
        correlation_id=request.state.request_id,
        traceparent=traceparent(),
    )
    request.state.work = Work(context.settings, db, cause, context.handlers.project)
    return request.state.work


WorkOfRequest = Annotated[Work, Depends(_work)]
"""The work of this request. Ask for the actor before it: the actor is the one who acts."""


# --- reading one's own writes -------------------------------------------------------------------------------------


def read_tokens(header: str) -> list[tuple[str, int]]:
    """The streams and versions of a `Flip-After` header. Raises Refused where it can't be read."""
    tokens: list[tuple[str, int]] = []
    for token in filter(None, (part.strip() for part in header.split(",")[:_MOST_TOKENS])):
        stream, at, version = token.rpartition("@")
        if not at or "/" not in stream or not version.isdigit():
            raise Refused("version-token-not-valid", field="Flip-After")
        tokens.append((stream, int(version)))
    return tokens


async def _wait_until_heard(context: Context, db: Connection, tokens: Sequence[tuple[str, int]]) -> None:
    heard = set(context.handlers.heard(context.settings))
    deadline = time.monotonic() + _PATIENCE_S
    for stream, version in tokens:
        topic, _, key = stream.partition("/")
        while topic in heard and await _heard(db, topic, key) < version:
            if time.monotonic() > deadline:
                raise Behind("not-heard-yet", "Try again in a moment.", stream=stream, retry_after_s=1)
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _heard(db: Connection, topic: str, key: str) -> int:
    version = await db.fetchval("SELECT max(version) FROM inbox_stream WHERE topic = $1 AND key = $2", topic, key)
    return version or 0


# --- problems -----------------------------------------------------------------------------------------------------


def problem(status: int, code: str, detail: str, request: Request, facts: Mapping[str, Any]) -> Response:
    """A problem document. `code` is stable; the facts stand beside it by their names."""
    body = {
        **jsonable_encoder(facts),
        "type": f"urn:flip:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
        "instance": f"urn:uuid:{request.state.request_id}",
    }
    headers = {"Retry-After": str(facts["retry_after_s"])} if "retry_after_s" in facts else {}
    if status == Unauthenticated.status:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM)


async def _refused(request: Request, error: Refused) -> Response:
    return problem(error.status, error.code, error.detail, request, error.facts)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    fields = [
        {"field": ".".join(str(part) for part in each["loc"] if part != "body") or "body", "problem": each["msg"]}
        for each in error.errors()
    ]
    return problem(422, "request-not-valid", "Some fields are wrong.", request, {"fields": fields})


async def _http(request: Request, error: HTTPException) -> Response:
    code = {404: "no-such-route", 405: "method-not-allowed"}.get(error.status_code, "request-refused")
    return problem(error.status_code, code, str(error.detail), request, {})


async def _broken(request: Request, error: Exception) -> Response:
    log.error("a request failed", path=request.scope["path"], exc_info=error)
    return problem(500, "internal-error", "This is our fault. The instance names it in our logs.", request, {})


# --- the app ------------------------------------------------------------------------------------------------------


def http_service(context: Context, *routers: APIRouter, checks: Mapping[str, Check], figures: Figures) -> FastAPI:
    """The service's app: its routers under `/api/<service>`, health and metrics."""
    name = context.settings.service
    app = FastAPI(
        title=f"FLIP {name}",
        openapi_url=f"/api/{name}/openapi.json",
        docs_url=f"/api/{name}/docs",
        redoc_url=None,
    )
    app.state.context = context
    app.add_exception_handler(Refused, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    app.middleware("http")(_around)
    for router in routers:
        app.include_router(router, prefix=f"/api/{name}")
    app.include_router(_health(checks, figures))
    return app


async def _around(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request.state.request_id = _request_id(request)
    began = time.monotonic()
    with span(f"{request.method} {request.scope['path']}", request.headers.get("traceparent")):
        try:
            await _hear_first(request)
            response = await call_next(request)
        except Refused as error:
            response = await _refused(request, error)
        except Exception as error:
            response = await _broken(request, error)
    work: Work | None = getattr(request.state, "work", None)
    if work and work.written:
        response.headers["Flip-Version"] = ", ".join(f"{stream}@{version}" for stream, version in work.written.items())
        _context(request).relay.wake.set()
    response.headers["X-Request-Id"] = str(request.state.request_id)
    route = getattr(request.scope.get("route"), "path", "none")
    REQUESTS.labels(request.method, route, response.status_code).observe(time.monotonic() - began)
    return response


async def _hear_first(request: Request) -> None:
    tokens = read_tokens(request.headers.get("flip-after", ""))
    if tokens:
        context = _context(request)
        async with context.pool.acquire() as db:
            await _wait_until_heard(context, db, tokens)


def _request_id(request: Request) -> UUID:
    try:
        return UUID(request.headers.get("x-request-id", ""))
    except ValueError:
        return uuid7()


def _health(checks: Mapping[str, Check], figures: Figures) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/health/ready")
    async def ready(response: Response) -> dict[str, Any]:
        found = {name: await check() for name, check in checks.items()}
        response.status_code = 200 if all(found.values()) else 503
        return {**found, "figures": await figures()}

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return router
