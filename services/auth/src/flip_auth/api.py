"""The routes of people: how they come in, and what admins do about them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Cookie, Depends, Query, Request, Response
from flip_chassis.database import Connection
from flip_chassis.http import Admin, AnyUser, Reading, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.refusal import NotFound, Refused, Unauthenticated
from flip_contracts.auth import Role, email_digest
from flip_contracts.base import UserId
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr

from flip_auth import domain, invitations, store
from flip_auth.door import Caller, Door, Opened
from flip_auth.invitations import Postman
from flip_auth.passwords import Passwords
from flip_auth.settings import AuthSettings
from flip_auth.tokens import ACCESS_LASTS, SigningKey

COOKIE = "flip_refresh"
_COOKIE_PATH = "/api/auth"
_MOST_IDS = 100

Secret = Annotated[SecretStr, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginRequest(_Body):
    """An address and its password."""

    email: EmailStr
    password: Secret


class FirstLoginRequest(_Body):
    """An address, the one-time password that was mailed to it, and the password to use from now on."""

    email: EmailStr
    one_time_password: Secret
    new_password: Secret


class PasswordRequest(_Body):
    """The password of today and the one to use from now on."""

    current_password: Secret
    new_password: Secret


class InviteRequest(_Body):
    """Whom to invite, and the one role that they get."""

    email: EmailStr
    role: Role


class RoleRequest(_Body):
    """The role that the user gets instead of theirs."""

    role: Role


class SessionView(BaseModel):
    """An open session. The refresh token comes as a cookie."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 (RFC 6750's word, no password)
    expires_in_s: int
    user_id: UserId


class UserView(BaseModel):
    """A user. `invitation` says what became of the last invitation's mail: waiting, sent or undeliverable."""

    user_id: UserId
    email: str
    role: Role
    status: str
    invited_at: datetime
    last_login_at: datetime | None
    invitation: str | None


class UserPage(BaseModel):
    """Some users, and how many there are."""

    items: list[UserView]
    total: int


class AddressView(BaseModel):
    """How to show a user to other users."""

    user_id: UserId
    email: str


# --- what the routes stand on -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes need beside the backbone."""

    settings: AuthSettings
    key: SigningKey
    passwords: Passwords
    door: Door
    postman: Postman


def _desk(request: Request) -> Desk:
    return request.app.state.desk


def _caller(request: Request) -> Caller:
    return Caller(request.client.host if request.client else "", request.state.request_id)


TheDesk = Annotated[Desk, Depends(_desk)]
TheCaller = Annotated[Caller, Depends(_caller)]
RefreshCookie = Annotated[str | None, Cookie(alias=COOKIE)]


# --- sessions -----------------------------------------------------------------------------------------------------

sessions = APIRouter(tags=["sessions"])


@sessions.get("/jwks.json")
async def keys(desk: TheDesk) -> dict[str, object]:
    """The keys that access tokens are checked with (RFC 7517). For everyone."""
    return dict(desk.key.jwks())


@sessions.post("/login")
async def log_in(body: LoginRequest, desk: TheDesk, caller: TheCaller, response: Response) -> SessionView:
    """Open a session. A one-time password is answered with `password-change-required`. For everyone."""
    opened = await desk.door.log_in(body.email, body.password.get_secret_value(), caller)
    return _hand_over(opened, response)


@sessions.post("/first-login")
async def first_log_in(body: FirstLoginRequest, desk: TheDesk, caller: TheCaller, response: Response) -> SessionView:
    """Set a password of one's own by the one-time password, and open a session. For everyone."""
    opened = await desk.door.first_log_in(
        body.email, body.one_time_password.get_secret_value(), body.new_password.get_secret_value(), caller
    )
    return _hand_over(opened, response)


@sessions.post("/refresh")
async def refresh(desk: TheDesk, caller: TheCaller, response: Response, token: RefreshCookie = None) -> SessionView:
    """New tokens by the refresh cookie, which is replaced; one that comes twice ends the session."""
    if token is None:
        raise Unauthenticated("refresh-token-missing", "Log in.")
    return _hand_over(await desk.door.refresh(token, caller), response)


@sessions.post("/logout", status_code=204)
async def log_out(desk: TheDesk, caller: TheCaller, response: Response, token: RefreshCookie = None) -> None:
    """End the session of the refresh cookie."""
    if token is not None:
        await desk.door.log_out(token, caller)
    response.delete_cookie(COOKIE, path=_COOKIE_PATH, secure=True, httponly=True, samesite="strict")


@sessions.post("/password")
async def change_password(
    body: PasswordRequest, actor: AnyUser, desk: TheDesk, caller: TheCaller, response: Response
) -> SessionView:
    """Replace one's password. Every session ends, and a new one is opened. For whoever is logged in."""
    opened = await desk.door.change_password(
        actor, body.current_password.get_secret_value(), body.new_password.get_secret_value(), caller
    )
    return _hand_over(opened, response)


def _hand_over(opened: Opened, response: Response) -> SessionView:
    lasts_s = max(0, round((opened.expires_at - datetime.now(UTC)).total_seconds()))
    response.set_cookie(
        COOKIE,
        opened.refresh_token,
        max_age=lasts_s,
        path=_COOKIE_PATH,
        secure=True,
        httponly=True,
        samesite="strict",
    )
    response.headers["Cache-Control"] = "no-store"
    return SessionView(
        access_token=opened.access_token, expires_in_s=int(ACCESS_LASTS.total_seconds()), user_id=opened.user_id
    )


# --- users --------------------------------------------------------------------------------------------------------

users = APIRouter(prefix="/users", tags=["users"])


@users.post("", status_code=201)
async def invite(body: InviteRequest, actor: Admin, work: WorkOfRequest, desk: TheDesk) -> UserView:
    """Invite somebody with one role; a mail brings them a one-time password (ACC-1). For admins."""
    user_id, digest = UserId(uuid7()), email_digest(body.email)
    one_time = await invitations.new_one_time(desk.passwords, desk.settings)
    async with work.on(domain.USER_AGGREGATE, user_id) as user:
        user.record(domain.invite(user.state, user_id, body.role, digest))
        if not await store.add_account(work.db, user_id, body.email, digest):
            raise Refused("address-already-known", "Somebody with this address was invited before.", field="email")
        await invitations.send_invitation(work.db, desk.settings, user_id, body.email, body.role, one_time)
    desk.postman.wake.set()
    return await _view(work.db, user_id)


@users.post("/{user_id}/invitation", status_code=202)
async def invite_again(user_id: UserId, actor: Admin, work: WorkOfRequest, desk: TheDesk) -> UserView:
    """Send a user who has not come yet another one-time password; the earlier one is void. For admins."""
    account = await _account(work.db, user_id)
    one_time = await invitations.new_one_time(desk.passwords, desk.settings)
    async with work.on(domain.USER_AGGREGATE, user_id) as user:
        said = domain.invite_again(user.state, user_id, account.email_digest)
        user.record(said)
        await invitations.send_invitation(work.db, desk.settings, user_id, account.email, said.role, one_time)
    desk.postman.wake.set()
    return await _view(work.db, user_id)


@users.get("")
async def look_at_all(
    actor: Admin,
    db: Reading,
    keyword: str = "",
    page: Annotated[int, Query(ge=1)] = 1,
    size: Annotated[int, Query(ge=1, le=200)] = 50,
) -> UserPage:
    """The users by address; `keyword` is looked for in the address. For admins."""
    rows = await store.people(db, keyword, size, (page - 1) * size)
    return UserPage(
        items=[UserView.model_validate(dict(row)) for row in rows], total=await store.count_people(db, keyword)
    )


@users.get("/me")
async def look_at_oneself(actor: AnyUser, db: Reading) -> UserView:
    """Who one is. For whoever is logged in."""
    return await _view(db, actor.user_id)


@users.get("/lookup")
async def look_up(
    actor: AnyUser, db: Reading, ids: Annotated[list[UserId], Query(min_length=1, max_length=_MOST_IDS)]
) -> list[AddressView]:
    """The addresses of users by their ids, to show them. For whoever is logged in."""
    return [AddressView.model_validate(dict(row)) for row in await store.addresses(db, ids)]


@users.post("/{user_id}/role")
async def change_role(user_id: UserId, body: RoleRequest, actor: Admin, work: WorkOfRequest) -> UserView:
    """Give a user another role; it holds at once, everywhere (ACC-6). For admins."""
    await _account(work.db, user_id)
    async with work.on(domain.USER_AGGREGATE, user_id) as user:
        user.record(domain.change_role(user.state, user_id, body.role, by=actor.user_id))
    return await _view(work.db, user_id)


@users.post("/{user_id}/disable")
async def disable(user_id: UserId, actor: Admin, work: WorkOfRequest) -> UserView:
    """Shut a user out; their sessions end (ACC-6). For admins."""
    await _account(work.db, user_id)
    async with work.on(domain.USER_AGGREGATE, user_id) as user:
        user.record(*domain.disable(user.state, user_id, by=actor.user_id))
    return await _view(work.db, user_id)


@users.post("/{user_id}/enable")
async def enable(user_id: UserId, actor: Admin, work: WorkOfRequest) -> UserView:
    """Let a user in again. For admins."""
    await _account(work.db, user_id)
    async with work.on(domain.USER_AGGREGATE, user_id) as user:
        user.record(domain.enable(user.state, user_id))
    return await _view(work.db, user_id)


async def _account(db: Connection, user_id: UserId) -> store.Account:
    account = await store.account(db, user_id)
    if account is None:
        raise NotFound("user-not-found")
    return account


async def _view(db: Connection, user_id: UserId) -> UserView:
    row = await store.person(db, user_id)
    if row is None:
        raise NotFound("user-not-found")
    return UserView.model_validate(dict(row))
