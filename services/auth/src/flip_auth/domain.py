"""Users: invited, active, disabled; their sessions; what makes a password and how often one may be tried. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import Invalid, require
from flip_contracts.auth import (
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    Role,
    RoleChanged,
    SessionEnded,
    UserActivated,
    UserDisabled,
    UserEnabled,
    UserInvited,
)
from flip_contracts.base import Event, Message, ReasonCode, SessionId, Sha256, UserId
from flip_contracts.topics import USER

Status = Literal["absent", "invited", "active", "disabled"]
Proof = Literal["none", "one-time-password-expired", "one-time-password", "password"]
"""What somebody who wants to log in could show."""

MOST_SESSIONS = 20
"""Open sessions of one user; a further one ends the oldest."""


@dataclass(frozen=True, slots=True)
class User:
    """A user. `sessions` are the open ones, oldest first."""

    status: Status = "absent"
    role: Role | None = None
    activated: bool = False
    sessions: tuple[SessionId, ...] = ()


def evolve(user: User, event: Message) -> User:  # noqa: PLR0911 (one an event)
    """The user after `event`."""
    match event:
        case UserInvited(role=role):
            return replace(user, status="invited", role=role)
        case UserActivated():
            return replace(user, status="active", activated=True)
        case RoleChanged(role=role):
            return replace(user, role=role)
        case UserDisabled():
            return replace(user, status="disabled")
        case UserEnabled():
            return replace(user, status="active" if user.activated else "invited")
        case LoginSucceeded(session_id=session_id):
            return replace(user, sessions=(*user.sessions, session_id))
        case SessionEnded(session_id=session_id):
            return replace(user, sessions=tuple(each for each in user.sessions if each != session_id))
        case _:
            return user


USER_AGGREGATE = Aggregate(USER, User(), evolve)


# --- what an admin does -------------------------------------------------------------------------------------------


def invite(user: User, user_id: UserId, role: Role, digest: Sha256) -> UserInvited:
    """Invite somebody new with one role (ACC-1)."""
    require(user.status == "absent", "user-already-known", status=user.status)
    return UserInvited(user_id=user_id, role=role, email_digest=digest)


def invite_again(user: User, user_id: UserId, digest: Sha256) -> UserInvited:
    """Send another one-time password to somebody who has not come yet; the earlier one is void."""
    require(user.status == "invited" and user.role, "user-not-waiting", "They have come already.", status=user.status)
    assert user.role is not None
    return UserInvited(user_id=user_id, role=user.role, email_digest=digest)


def change_role(user: User, user_id: UserId, role: Role, *, by: UserId) -> RoleChanged:
    """Give the user another role (ACC-4). Nobody changes their own: somebody stays admin."""
    _not_oneself(user_id, by)
    require(user.status != "absent", "user-not-known")
    require(user.role != role, "role-already-held", role=role)
    return RoleChanged(user_id=user_id, role=role)


def disable(user: User, user_id: UserId, *, by: UserId) -> list[Event]:
    """Shut the user out; their sessions end (ACC-6)."""
    _not_oneself(user_id, by)
    require(user.status in {"invited", "active"}, "user-already-disabled", status=user.status)
    return [UserDisabled(user_id=user_id), *_end_all(user, user_id, "user-disabled")]


def enable(user: User, user_id: UserId) -> UserEnabled:
    """Let the user in again."""
    require(user.status == "disabled", "user-not-disabled", status=user.status)
    return UserEnabled(user_id=user_id)


def _not_oneself(user_id: UserId, by: UserId) -> None:
    require(user_id != by, "not-for-oneself", "Another admin has to do this.")


# --- what a user does ---------------------------------------------------------------------------------------------


def refuse_login(user: User, user_id: UserId, proof: Proof) -> LoginFailed | None:
    """Why what they could show lets nobody in, if so."""
    if proof == "none":
        return LoginFailed(user_id=user_id, reason="wrong-password")
    if user.status == "disabled":
        return LoginFailed(user_id=user_id, reason="user-disabled")
    if proof == "one-time-password-expired":
        return LoginFailed(user_id=user_id, reason=proof)
    return None


def open_session(user: User, user_id: UserId, session_id: SessionId) -> list[Event]:
    """The user logs in with their own password."""
    require(user.status == "active", "user-not-active", status=user.status)
    return _open(user, user_id, session_id)


def activate(user: User, user_id: UserId, session_id: SessionId) -> list[Event]:
    """The first login: a password of their own is set, a session is open."""
    require(user.status == "invited", "user-not-waiting", status=user.status)
    return [UserActivated(user_id=user_id), *_open(user, user_id, session_id)]


def change_password(user: User, user_id: UserId, session_id: SessionId) -> list[Event]:
    """All sessions end; one with the new password is open."""
    require(user.status == "active", "user-not-active", status=user.status)
    ended = _end_all(user, user_id, "password-changed")
    return [PasswordChanged(user_id=user_id), *ended, LoginSucceeded(user_id=user_id, session_id=session_id)]


def end_session(user: User, user_id: UserId, session_id: SessionId, reason: ReasonCode) -> list[SessionEnded]:
    """End a session; one that has ended stays so."""
    if session_id not in user.sessions:
        return []
    return [SessionEnded(user_id=user_id, session_id=session_id, reason=reason)]


def _open(user: User, user_id: UserId, session_id: SessionId) -> list[Event]:
    surplus = user.sessions[: max(0, len(user.sessions) + 1 - MOST_SESSIONS)]
    ended = [SessionEnded(user_id=user_id, session_id=each, reason="too-many-sessions") for each in surplus]
    return [*ended, LoginSucceeded(user_id=user_id, session_id=session_id)]


def _end_all(user: User, user_id: UserId, reason: ReasonCode) -> list[SessionEnded]:
    return [SessionEnded(user_id=user_id, session_id=each, reason=reason) for each in user.sessions]


# --- passwords ----------------------------------------------------------------------------------------------------

SHORTEST_PASSWORD = 8


def _is_special(character: str) -> bool:
    return not character.isalnum() and not character.isspace()


_RULES: Mapping[str, Callable[[str], bool]] = {
    "at-least-8-characters": lambda password: len(password) >= SHORTEST_PASSWORD,
    "lower-case-letter": lambda password: any(map(str.islower, password)),
    "upper-case-letter": lambda password: any(map(str.isupper, password)),
    "digit": lambda password: any(map(str.isdigit, password)),
    "special-character": lambda password: any(map(_is_special, password)),
}


def check_password(password: str) -> None:
    """Refuse a weak password with every rule that it breaks (ACC-2)."""
    broken = [rule for rule, holds in _RULES.items() if not holds(password)]
    if broken:
        raise Invalid("password-too-weak", "Mend every rule that is named.", field="new_password", rules=broken)


FREE_TRIES = 5
FORGET_TRIES = timedelta(hours=1)
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=15)


def pause_after(tries: int) -> timedelta:
    """How long the next try must wait after so many in a row: nothing at first, then doubling to 15 minutes."""
    if tries < FREE_TRIES:
        return timedelta(0)
    return min(_FIRST_PAUSE * 2 ** min(tries - FREE_TRIES, 16), _LONGEST_PAUSE)
