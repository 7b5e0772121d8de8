"""Who asks, and what they may do: access tokens checked against this service's own knowledge of users and projects.

A token proves who the user is; the role is what this service has heard from `auth`. The token names the version of the
user's stream at which it was made: a service that has not heard as far waits, so a change of role holds at once.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from flip_contracts.auth import (
    Role,
    RoleChanged,
    SessionEnded,
    UserActivated,
    UserDisabled,
    UserEnabled,
    UserInvited,
)
from flip_contracts.base import ProjectId, SessionId, TrustCode, UserId
from flip_contracts.cloudevents import Envelope
from flip_contracts.projects import (
    ApprovalWithdrawn,
    ProjectApproved,
    ProjectCreated,
    ProjectDeclined,
    ProjectDeleted,
    ProjectEdited,
    ProjectStaged,
    ProjectUnstaged,
)
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from flip_chassis.database import Connection
from flip_chassis.handlers import projection
from flip_chassis.refusal import Behind, Forbidden, NotFound, Unauthenticated

ISSUER = "flip"
ALGORITHM = "Ed25519"
"""RFC 9864's fully specified name of what JWTs used to call EdDSA."""
_FETCH_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Actor:
    """A user who asks, with the role that this service knows them by."""

    user_id: UserId
    role: Role
    session_id: SessionId

    def __str__(self) -> str:
        return f"user:{self.user_id}"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid access token says. `user_version` is how far the user's stream had come when it was made."""

    user_id: UserId
    session_id: SessionId
    user_version: int


FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]
"""Gets the JSON Web Key Set that `auth` publishes."""


def published_at(url: str) -> FetchKeys:
    """Fetch the keys from where `auth` publishes them."""

    async def fetch() -> Mapping[str, Any]:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(url)
            return answer.raise_for_status().json()

    return fetch


class SigningKeys:
    """The keys that `auth` publishes, fetched when a token names one that is not known yet."""

    def __init__(self, fetch: FetchKeys) -> None:
        self._fetch = fetch
        self._keys: KeySet | None = None
        self._fetched_at = -_FETCH_AGAIN_S

    async def claims(self, token: str) -> Claims:
        """Check signature, issuer and expiry. Raises Unauthenticated, and Behind where `auth` can't be asked."""
        for again in (False, True):
            keys = await self._known(again=again)
            try:
                claims = jwt.decode(token, keys, algorithms=[ALGORITHM]).claims
                _registry.validate(claims)
                return Claims(UserId(UUID(claims["sub"])), SessionId(UUID(claims["sid"])), int(claims["uv"]))
            except (JoseError, ValueError, KeyError, TypeError) as error:
                reason = error
        raise Unauthenticated("token-not-valid", "Log in again.") from reason

    async def _known(self, *, again: bool) -> KeySet:
        stale = time.monotonic() - self._fetched_at >= _FETCH_AGAIN_S
        if self._keys is None or (again and stale):
            try:
                published = await self._fetch()
            except httpx.HTTPError as error:
                raise Behind("keys-not-known", "Who asks can't be checked yet; ask again.", retry_after_s=1) from error
            self._keys = KeySet.import_key_set(dict(published))  # type: ignore[arg-type]
            self._fetched_at = time.monotonic()
        return self._keys


_registry = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER}, sub={"essential": True}, exp={"essential": True}
)


# --- what this service knows of users -----------------------------------------------------------------------------


async def actor_of(db: Connection, claims: Claims) -> Actor:
    """The user behind the claims. Raises Unauthenticated where they are shut out or their session has ended."""
    row = await db.fetchrow(
        "SELECT role, active, EXISTS (SELECT FROM ended_session WHERE session_id = $2) AS ended"
        " FROM known_user WHERE user_id = $1",
        claims.user_id,
        claims.session_id,
    )
    if row is None or not row["active"] or row["ended"]:
        raise Unauthenticated("session-ended", "Log in again.")
    return Actor(claims.user_id, row["role"], claims.session_id)


@projection
async def learn_user(event: UserInvited, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO known_user (user_id, role, email_digest, active, version) VALUES ($1, $2, $3, false, $4)"
        " ON CONFLICT (user_id) DO UPDATE SET role = $2, email_digest = $3, version = $4",
        event.user_id,
        event.role,
        event.email_digest,
        said.stream_version,
    )


@projection
async def learn_activation(event: UserActivated, db: Connection) -> None:
    await _set_active(db, event.user_id, active=True)


@projection
async def learn_shut_out(event: UserDisabled, db: Connection) -> None:
    await _set_active(db, event.user_id, active=False)


@projection
async def learn_return(event: UserEnabled, db: Connection) -> None:
    await _set_active(db, event.user_id, active=True)


async def _set_active(db: Connection, user_id: UserId, *, active: bool) -> None:
    await db.execute("UPDATE known_user SET active = $2 WHERE user_id = $1", user_id, active)


@projection
async def learn_role(event: RoleChanged, db: Connection) -> None:
    await db.execute("UPDATE known_user SET role = $2 WHERE user_id = $1", event.user_id, event.role)


@projection
async def learn_end_of_session(event: SessionEnded, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO ended_session (session_id, at) VALUES ($1, $2) ON CONFLICT DO NOTHING", event.session_id, said.time
    )


user_handlers = (learn_user, learn_activation, learn_shut_out, learn_return, learn_role, learn_end_of_session)
"""Every service with users' routes declares these."""


# --- what this service knows of projects --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownProject:
    """A project as far as access goes. `status` is draft, staged, approved or deleted."""

    project_id: ProjectId
    owner: UserId
    members: frozenset[UserId]
    status: str
    approved: frozenset[TrustCode]


async def known_project(db: Connection, project_id: ProjectId) -> KnownProject | None:
    """The project, if this service has heard of it."""
    row = await db.fetchrow("SELECT * FROM known_project WHERE project_id = $1", project_id)
    return None if row is None else _known(row)


def _known(row: Any) -> KnownProject:
    return KnownProject(
        row["project_id"], row["owner"], frozenset(row["members"]), row["status"], frozenset(row["approved"])
    )


def may_see(project: KnownProject | None, actor: Actor) -> KnownProject:
    """The project, for those who may know of it: its owner, its members, admins. Raises NotFound for all others."""
    if (
        project is None
        or project.status == "deleted"
        or not (actor.role == "admin" or actor.user_id == project.owner or actor.user_id in project.members)
    ):
        raise NotFound("project-not-found")
    return project


def may_work_on(project: KnownProject | None, actor: Actor) -> KnownProject:
    """The project, for those who may change it: whoever may see it, viewers excepted. Raises NotFound or Forbidden."""
    seen = may_see(project, actor)
    if actor.role == "viewer":
        raise Forbidden("role-not-allowed", "A viewer changes nothing.", role=actor.role)
    return seen


@projection
async def learn_project(event: ProjectCreated, db: Connection) -> None:
    await db.execute(
        "INSERT INTO known_project (project_id, owner, members, status) VALUES ($1, $2, $3, 'draft')"
        " ON CONFLICT (project_id) DO NOTHING",
        event.project_id,
        event.owner,
        list(event.members),
    )


@projection
async def learn_members(event: ProjectEdited, db: Connection) -> None:
    await db.execute(
        "UPDATE known_project SET members = $2 WHERE project_id = $1", event.project_id, list(event.members)
    )


@projection
async def learn_staging(event: ProjectStaged, db: Connection) -> None:
    await _set_status(db, event.project_id, "staged")


@projection
async def learn_unstaging(event: ProjectUnstaged, db: Connection) -> None:
    await _set_status(db, event.project_id, "draft")


@projection
async def learn_deletion(event: ProjectDeleted, db: Connection) -> None:
    await _set_status(db, event.project_id, "deleted")


async def _set_status(db: Connection, project_id: ProjectId, status: str) -> None:
    await db.execute("UPDATE known_project SET status = $2 WHERE project_id = $1", project_id, status)


@projection
async def learn_approval(event: ProjectApproved, db: Connection) -> None:
    await db.execute(
        "UPDATE known_project SET status = 'approved', approved = array_append(array_remove(approved, $2), $2)"
        " WHERE project_id = $1",
        event.project_id,
        event.trust,
    )


@projection
async def learn_refusal(event: ProjectDeclined, db: Connection) -> None:
    await _not_approved(db, event.project_id, event.trust)


@projection
async def learn_withdrawal(event: ApprovalWithdrawn, db: Connection) -> None:
    await _not_approved(db, event.project_id, event.trust)


async def _not_approved(db: Connection, project_id: ProjectId, trust: TrustCode) -> None:
    await db.execute(
        "UPDATE known_project SET approved = array_remove(approved, $2) WHERE project_id = $1", project_id, trust
    )


project_handlers = (
    learn_project,
    learn_members,
    learn_staging,
    learn_unstaging,
    learn_deletion,
    learn_approval,
    learn_refusal,
    learn_withdrawal,
)
"""Every service with a project's routes declares these beside `user_handlers`."""
