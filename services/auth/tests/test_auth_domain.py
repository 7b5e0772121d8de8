"""Users, sessions, passwords and tries: what the pure rules promise."""

from collections.abc import Callable, Sequence
from functools import reduce

import pytest
from flip_auth import domain
from flip_auth.domain import MOST_SESSIONS, User, check_password, evolve, pause_after
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Refused
from flip_chassis.testing import refused
from flip_contracts.auth import (
    LoginFailed,
    LoginSucceeded,
    Role,
    SessionEnded,
    UserActivated,
    UserDisabled,
    UserInvited,
    email_digest,
)
from flip_contracts.base import Event, SessionId, UserId
from hypothesis import given, settings
from hypothesis import strategies as st

ADA, ADMIN = UserId(uuid7()), UserId(uuid7())
DIGEST = email_digest("ada@flip.example")
INVITED = UserInvited(user_id=ADA, role="researcher", email_digest=DIGEST)
ACTIVE = (INVITED, UserActivated(user_id=ADA))
DISABLED = (*ACTIVE, UserDisabled(user_id=ADA))


def given_that(*events: Event) -> User:
    return reduce(evolve, events, User())


def new_session() -> SessionId:
    return SessionId(uuid7())


# --- ACC-2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ACC-2")
@pytest.mark.parametrize(
    ("password", "broken"),
    [
        ("", ["at-least-8-characters", "lower-case-letter", "upper-case-letter", "digit", "special-character"]),
        ("short", ["at-least-8-characters", "upper-case-letter", "digit", "special-character"]),
        ("longenough", ["upper-case-letter", "digit", "special-character"]),
        ("LONGENOUGH1!", ["lower-case-letter"]),
        ("Longenough1", ["special-character"]),
        ("Long enough1", ["special-character"]),
        ("Aa1!Aa1", ["at-least-8-characters"]),
    ],
)
def test_a_weak_password_is_refused_with_every_rule_it_breaks(password: str, broken: list[str]):
    with refused("password-too-weak", rules=broken, field="new_password"):
        check_password(password)


@pytest.mark.requirement("ACC-2")
@pytest.mark.parametrize("password", ["Abcdef1!", "Ünïcode-9x", "aA1" + "§" * 5])
def test_a_password_that_keeps_every_rule_is_taken(password: str):
    check_password(password)


# --- users ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("ACC-1")
def test_an_address_that_was_invited_is_not_invited_as_new():
    with refused("user-already-known", status="invited"):
        domain.invite(given_that(INVITED), ADA, "viewer", DIGEST)


@pytest.mark.requirement("ACC-1")
def test_only_who_has_not_come_yet_is_invited_again():
    assert domain.invite_again(given_that(INVITED), ADA, DIGEST).role == "researcher"
    with refused("user-not-waiting", status="active"):
        domain.invite_again(given_that(*ACTIVE), ADA, DIGEST)


@pytest.mark.requirement("ACC-4")
def test_a_user_holds_exactly_the_role_given_last():
    user = given_that(*ACTIVE)
    changed = evolve(user, domain.change_role(user, ADA, "viewer", by=ADMIN))
    assert changed.role == "viewer"
    with refused("role-already-held", role="viewer"):
        domain.change_role(changed, ADA, "viewer", by=ADMIN)


@pytest.mark.requirement("ACC-4")
def test_an_admin_neither_shuts_themselves_out_nor_changes_their_own_role():
    with refused("not-for-oneself"):
        domain.disable(given_that(*ACTIVE), ADA, by=ADA)
    with refused("not-for-oneself"):
        domain.change_role(given_that(*ACTIVE), ADA, "viewer", by=ADA)


@pytest.mark.requirement("ACC-6")
def test_shutting_a_user_out_ends_every_session():
    session = new_session()
    user = given_that(*ACTIVE, LoginSucceeded(user_id=ADA, session_id=session))
    said = domain.disable(user, ADA, by=ADMIN)
    assert [type(event) for event in said] == [UserDisabled, SessionEnded]
    assert given_that(*ACTIVE, *said).status == "disabled"


def test_who_never_came_is_invited_again_after_being_let_in_again():
    user = given_that(INVITED, UserDisabled(user_id=ADA))
    assert evolve(user, domain.enable(user, ADA)).status == "invited"


@pytest.mark.parametrize(
    ("events", "proof", "reason"),
    [
        (ACTIVE, "none", "wrong-password"),
        (DISABLED, "none", "wrong-password"),
        (DISABLED, "password", "user-disabled"),
        ((INVITED,), "one-time-password-expired", "one-time-password-expired"),
    ],
)
def test_a_login_is_refused_for_this_reason(events: tuple[Event, ...], proof: domain.Proof, reason: str):
    assert domain.refuse_login(given_that(*events), ADA, proof) == LoginFailed(user_id=ADA, reason=reason)


def test_a_one_time_password_opens_no_session_of_its_own():
    user = given_that(INVITED)
    assert domain.refuse_login(user, ADA, "one-time-password") is None
    with refused("user-not-active", status="invited"):
        domain.open_session(user, ADA, new_session())


def test_the_first_login_happens_once():
    with refused("user-not-waiting", status="active"):
        domain.activate(given_that(*ACTIVE), ADA, new_session())


def test_a_session_beyond_the_most_ends_the_oldest():
    user = given_that(*ACTIVE)
    sessions = [new_session() for _ in range(MOST_SESSIONS + 1)]
    for session in sessions:
        user = reduce(evolve, domain.open_session(user, ADA, session), user)
    assert user.sessions == tuple(sessions[1:])


def _other_role(user: User) -> Role:
    return "viewer" if user.role == "admin" else "admin"


COMMANDS: dict[str, Callable[[User], Sequence[Event]]] = {
    "invite": lambda user: [domain.invite(user, ADA, "viewer", DIGEST)],
    "invite again": lambda user: [domain.invite_again(user, ADA, DIGEST)],
    "activate": lambda user: domain.activate(user, ADA, new_session()),
    "log in": lambda user: domain.open_session(user, ADA, new_session()),
    "log out": lambda user: domain.end_session(user, ADA, (*user.sessions, new_session())[0], "logged-out"),
    "disable": lambda user: domain.disable(user, ADA, by=ADMIN),
    "enable": lambda user: [domain.enable(user, ADA)],
    "change password": lambda user: domain.change_password(user, ADA, new_session()),
    "change role": lambda user: [domain.change_role(user, ADA, _other_role(user), by=ADMIN)],
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=40))
def test_no_order_of_commands_leaves_an_open_session_with_somebody_who_may_not_act(steps: list[str]):
    user = User()
    for name in ["invite", *steps]:
        try:
            user = reduce(evolve, COMMANDS[name](user), user)
        except Refused:
            continue
        assert user.status == "active" or not user.sessions
        assert len(user.sessions) <= MOST_SESSIONS
        assert user.activated or user.status in {"invited", "disabled"}
        assert user.role is not None


# --- tries ----------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=10_000))
def test_the_pause_between_tries_never_shrinks_and_ends_at_a_quarter_of_an_hour(tries: int):
    assert pause_after(tries) <= pause_after(tries + 1)
    assert pause_after(tries).total_seconds() <= 900
    assert (pause_after(tries).total_seconds() > 0) == (tries >= domain.FREE_TRIES)
