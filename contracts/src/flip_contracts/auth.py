"""What `auth` says: users, roles and sessions. Addresses and names stay in `auth`; an address is said as its digest."""

from hashlib import sha256
from typing import Annotated, Literal

from flip_contracts.base import Event, Open, ReasonCode, SessionId, Sha256, UserId
from flip_contracts.topics import USER

Role = Literal["viewer", "researcher", "admin"]


def email_digest(address: str) -> Sha256:
    """SHA-256 of the address in lower case: enough to find a known address, not to read one."""
    return sha256(address.strip().lower().encode()).hexdigest()


class UserInvited(Event, topic=USER, version=1):
    """An admin invited somebody with exactly one role. The invitation's one-time password went out by mail."""

    user_id: UserId
    role: Annotated[Role, Open("viewer")]
    email_digest: Sha256


class UserActivated(Event, topic=USER, version=1):
    """The invited user set a password of their own; from here on they may act."""

    user_id: UserId


class PasswordChanged(Event, topic=USER, version=1):
    """The user replaced their password; all earlier sessions ended."""

    user_id: UserId


class RoleChanged(Event, topic=USER, version=1):
    """An admin gave the user another role."""

    user_id: UserId
    role: Annotated[Role, Open("viewer")]


class UserDisabled(Event, topic=USER, version=1):
    """An admin shut the user out, sessions included."""

    user_id: UserId


class UserEnabled(Event, topic=USER, version=1):
    """An admin let the user in again."""

    user_id: UserId


class LoginSucceeded(Event, topic=USER, version=1):
    """The user opened a session."""

    user_id: UserId
    session_id: SessionId


class LoginFailed(Event, topic=USER, version=1):
    """Somebody tried to log in as this user and was refused. Tries with unknown addresses are counted, not said."""

    user_id: UserId
    reason: ReasonCode


class SessionEnded(Event, topic=USER, version=1):
    """A session ended: by logout, by an admin, or because its refresh token was used twice."""

    user_id: UserId
    session_id: SessionId
    reason: ReasonCode
