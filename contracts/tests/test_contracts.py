"""The contracts keep their word: bodies are canonical, enums are open, every topic has its owner."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import pytest
from flip_contracts import base
from flip_contracts.auth import RoleChanged
from flip_contracts.base import Event, Message, Open, ProjectId, UserId
from flip_contracts.catalogue import messages, topics
from flip_contracts.cloudevents import Malformed, read_envelope
from flip_contracts.cohort import CohortAnswered, RunCohortQuery
from flip_contracts.examples import examples_of
from flip_contracts.projects import ModelCreated, ProjectApproved, ProjectStaged
from pydantic import BaseModel, ValidationError

PROJECT = ProjectId(UUID(int=7))


@pytest.mark.requirement("BUS-1")
@pytest.mark.parametrize("name", ["ProjectStaged", "ProjectApproved", "ImportFailed", "NetFree", "RoundComplete"])
def test_the_fixed_names_are_said_on_the_bus(name: str):
    assert [message.__name__ for message in messages()].count(name) == 1


def test_a_body_is_canonical_and_comes_back_the_same():
    staged = ProjectStaged(project_id=PROJECT, trusts=frozenset({"KCH"}), query_version=1)
    assert staged.encode() == b'{"project_id":"%s","query_version":1,"trusts":["KCH"]}' % str(PROJECT).encode()
    assert ProjectStaged.decode(staged.encode()) == staged


def test_a_reader_ignores_a_field_that_it_does_not_know_yet():
    body = ProjectApproved(project_id=PROJECT, trust="KCH", reason="fits").encode()[:-1] + b',"later":1}'
    assert ProjectApproved.decode(body).trust == "KCH"


# --- enums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field", "least"),
    [(RoleChanged, "role", "viewer"), (CohortAnswered, "outcome", "failed")],
)
def test_a_value_that_a_reader_does_not_know_is_read_as_the_least_it_can_mean(
    message: type[Message], field: str, least: str
):
    body: Any = examples_of(message.body_schema())[0]
    assert getattr(message.decode(orjson.dumps({**body, field: "of-tomorrow"})), field) == least


def test_a_known_value_is_read_as_it_is():
    changed = RoleChanged(user_id=UserId(UUID(int=1)), role="admin")
    assert RoleChanged.decode(changed.encode()) == changed


def test_who_says_a_message_is_held_to_the_known_values():
    with pytest.raises(ValidationError, match="role"):
        RoleChanged(user_id=UserId(UUID(int=1)), role="of-tomorrow")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", [None, 7, ["viewer"]])
def test_what_is_no_text_is_no_value_of_an_open_enum(wrong: object):
    with pytest.raises(ValidationError, match="role"):
        RoleChanged.decode(orjson.dumps({"user_id": str(UUID(int=1)), "role": wrong}))


def test_where_no_value_is_safe_to_assume_an_unknown_one_is_refused():
    body: Any = examples_of(ModelCreated.body_schema())[0]
    with pytest.raises(ValidationError, match="framework"):
        ModelCreated.decode(orjson.dumps({**body, "framework": "of-tomorrow"}))


def test_an_open_enum_must_know_what_it_reads_unknown_values_as():
    with pytest.raises(TypeError, match="worst"):

        class Wrong(BaseModel):
            grade: Annotated[Literal["good", "bad"], Open("worst")]


def test_two_versions_of_a_message_live_side_by_side(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "REGISTRY", {})
    topic = base.Topic("flip.test", key="project_id", owner="test", description="")

    class Moved(Event, topic=topic, version=1):
        project_id: ProjectId
        place: str

    class MovedV2(Event, topic=topic, version=2):
        project_id: ProjectId
        trust: str

    assert [one.type_name.rsplit(".", 2)[1:] for one in (Moved, MovedV2)] == [["Moved", "v1"], ["Moved", "v2"]]
    assert {*base.REGISTRY.values()} == {Moved, MovedV2}


# --- topics --------------------------------------------------------------------------------------------------------


def test_the_text_of_a_query_is_confidential():
    command = RunCohortQuery(
        project_id=PROJECT,
        query_version=1,
        query_digest="0" * 64,
        sql="SELECT 1",
        imaging=True,
        deadline=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert "sql" not in command.public()
    assert "query_digest" in command.public()


def test_a_trust_may_write_its_own_reports_only_and_read_its_own_commands_only():
    known = {topic.name: topic for topic in topics(["KCH", "UCLH"])}
    of_kch = {name for name, topic in known.items() if "trust.KCH" in topic.writers | topic.readers}
    assert of_kch == {"flip.trust.KCH.commands", "flip.trust.KCH.reports"}
    assert known["flip.trust.KCH.reports"].writers == {"trust.KCH"}
    assert "trust.KCH" not in known["flip.trust.KCH.commands"].writers


def test_audit_reads_every_topic():
    assert all("service.audit" in topic.readers for topic in topics(["KCH"]))


def test_a_message_without_the_field_that_orders_its_topic_is_refused_when_declared():
    with pytest.raises(TypeError, match="project_id"):

        class Nameless(Message, topic=ProjectStaged.topic, version=1):
            pass


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ([], "ce_id"),
        ([("ce_id", b"\xff")], "UTF-8"),
        ([("ce_id", b"no uuid")], "ce_id"),
    ],
)
def test_a_record_that_is_no_event_is_refused_with_the_header_named(headers: list[tuple[str, bytes]], named: str):
    with pytest.raises(Malformed, match=named):
        read_envelope("flip.projects.project", headers)
