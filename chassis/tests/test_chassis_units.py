"""What of the chassis is pure: ids, retries, reading records, declaring handlers."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flip_chassis.database import Connection
from flip_chassis.handlers import Handlers, is_own, projection, reaction, trust_of
from flip_chassis.http import read_tokens
from flip_chassis.ids import uuid7
from flip_chassis.inbox import pause_after, unpack
from flip_chassis.refusal import Refused, require
from flip_chassis.settings import Settings
from flip_chassis.testing import refused
from flip_chassis.work import Work
from flip_contracts.base import ProjectId
from flip_contracts.catalogue import messages
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import RunCohortQuery, TrustAnsweredQuery
from flip_contracts.projects import ProjectApproved, ProjectDeleted
from hypothesis import given
from hypothesis import strategies as st

PROJECT = ProjectId(UUID(int=7))


class OfHub(Settings):
    service = "cohort"


class OfProjects(Settings):
    service = "projects"


def settings(kind: type[Settings] = OfHub, trust: str | None = None) -> Settings:
    return kind.model_construct(trust=trust, trusts=frozenset({"KCH", "UCLH"}))


def envelope(topic: str = "flip.projects.project") -> Envelope:
    return Envelope(
        id=uuid7(),
        type=ProjectApproved.type_name,
        source="flip/hub/projects",
        topic=topic,
        key=str(PROJECT),
        stream_version=1,
        time=datetime.now(UTC),
        actor="service:test",
        correlation_id=uuid7(),
        causation_id=None,
        traceparent=None,
    )


def test_ids_sort_by_the_time_they_were_made_and_are_uuids_of_version_7():
    ids = [uuid7() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert [each.int >> 80 for each in ids] == sorted(each.int >> 80 for each in ids)


@given(st.integers(1, 10_000))
def test_a_retry_waits_longer_each_time_but_never_more_than_five_minutes(attempts: int):
    assert timedelta() < pause_after(attempts) <= pause_after(attempts + 1) <= timedelta(minutes=5)


@given(
    st.binary(max_size=64) | st.none(),
    st.lists(st.tuples(st.sampled_from(["ce_id", "ce_type", "x"]), st.binary(max_size=32)), max_size=4),
    st.binary(max_size=64) | st.none(),
)
def test_reading_a_record_never_raises(key: bytes | None, headers: list[tuple[str, bytes]], value: bytes | None):
    parcel = unpack("flip.projects.project", key, 0, 3, headers, value)
    assert parcel.said is None
    assert parcel.flaw


@pytest.mark.parametrize(
    ("value", "flaw"), [(None, "body"), (b"{", "body"), (b'{"project_id":"x"}', "project_id"), (b"[]", "body")]
)
def test_a_wrong_body_is_a_flaw_that_names_the_field(value: bytes | None, flaw: str):
    it = envelope()
    parcel = unpack(it.topic, it.key.encode(), 0, 0, it.headers(), value)
    assert parcel.envelope == it
    assert flaw in (parcel.flaw or "")


def test_what_is_written_into_headers_is_read_back_the_same():
    it = envelope()
    body = ProjectApproved(project_id=PROJECT, trust="KCH", reason="fits")
    parcel = unpack(it.topic, it.key.encode(), 0, 0, it.headers(), body.encode())
    assert parcel.said is not None
    assert (parcel.said.envelope, parcel.said.message) == (it, body)


async def hear_deletion(event: ProjectDeleted, db: Connection) -> None: ...


async def act_on_deletion(event: ProjectDeleted, work: Work, said: Envelope) -> None: ...


async def hear_answer(event: TrustAnsweredQuery, db: Connection) -> None: ...


async def hear_query(event: RunCohortQuery, db: Connection) -> None: ...


def test_a_projection_is_not_given_the_means_to_act():
    with pytest.raises(TypeError, match="act_on_deletion"):
        projection(act_on_deletion)


def test_a_reaction_to_what_the_service_says_itself_is_refused():
    with pytest.raises(TypeError, match="decide it where ProjectDeleted is said"):
        Handlers(settings(OfProjects), [reaction(act_on_deletion)])


def test_the_hub_hears_the_reports_of_every_trust_and_a_trust_its_own_commands():
    heard = [projection(hear_deletion), projection(hear_answer)]
    assert Handlers(settings(), heard).heard(settings()) == [
        "flip.projects.project",
        "flip.trust.KCH.reports",
        "flip.trust.UCLH.reports",
    ]
    at_trust = settings(trust="KCH")
    assert Handlers(at_trust, [projection(hear_query)]).heard(at_trust) == ["flip.trust.KCH.commands"]


def test_a_service_does_not_subscribe_to_what_it_says_itself():
    own = settings(OfProjects)
    assert is_own(ProjectDeleted, own)
    assert Handlers(own, [projection(hear_deletion)]).heard(own) == []


def test_the_topic_tells_the_trust():
    assert trust_of(envelope("flip.trust.KCH.reports")) == "KCH"
    with pytest.raises(ValueError, match=r"flip\.projects\.project"):
        trust_of(envelope())


def test_require_refuses_with_code_and_facts():
    with refused("project-not-in-draft", status="staged"):
        require(False, "project-not-in-draft", status="staged")
    require(True, "never")


@pytest.mark.parametrize("header", ["x", "flip.projects.project@1", "flip.projects.project/7@x", "a/b@-1"])
def test_a_version_token_that_cannot_be_read_is_refused(header: str):
    with pytest.raises(Refused, match="version-token-not-valid"):
        read_tokens(header)


def test_an_inbox_knows_every_message_whatever_its_service_imports():
    """A Trust's topics are shared by several services; what is for another one must not look unknown."""
    program = "import flip_chassis.inbox; from flip_contracts.base import REGISTRY; print(len(REGISTRY))"
    known = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(known.stdout) == len(messages())


def test_version_tokens_name_stream_and_version():
    assert read_tokens("flip.projects.project/7@3, flip.auth.user/8@1") == [
        ("flip.projects.project/7", 3),
        ("flip.auth.user/8", 1),
    ]
