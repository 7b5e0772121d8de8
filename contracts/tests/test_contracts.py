"""The contracts keep their word: history parses, bodies are canonical, every topic has its owner."""

from pathlib import Path
from uuid import UUID

import pytest
from flip_contracts.base import REGISTRY, Message, ProjectId
from flip_contracts.catalogue import messages, topics
from flip_contracts.cloudevents import Malformed, read_envelope
from flip_contracts.cohort import RunCohortQuery
from flip_contracts.generate import write
from flip_contracts.projects import ProjectApproved, ProjectStaged

GENERATED = Path(__file__).parents[1] / "generated"
EXAMPLES = sorted((GENERATED / "examples").glob("*.json"))
PROJECT = ProjectId(UUID(int=7))


@pytest.mark.requirement("BUS-1")
@pytest.mark.parametrize("name", ["ProjectStaged", "ProjectApproved", "ImportFailed", "NetFree", "RoundComplete"])
def test_the_fixed_names_are_said_on_the_bus(name: str):
    assert [message.__name__ for message in messages()].count(name) == 1


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_ever_published_parses_today(file: Path):
    REGISTRY[file.stem].decode(file.read_bytes())


def test_every_message_has_an_example():
    assert {file.stem for file in EXAMPLES} == {message.type_name for message in messages()}


def test_what_is_generated_is_what_is_committed(tmp_path: Path):
    write(tmp_path)
    for file in tmp_path.rglob("*.json"):
        if file.parent.name != "examples":
            assert file.read_bytes() == (GENERATED / file.relative_to(tmp_path)).read_bytes(), file.name


def test_a_body_is_canonical_and_comes_back_the_same():
    staged = ProjectStaged(project_id=PROJECT, trusts=frozenset({"KCH"}), query_version=1)
    assert staged.encode() == b'{"project_id":"%s","query_version":1,"trusts":["KCH"]}' % str(PROJECT).encode()
    assert ProjectStaged.decode(staged.encode()) == staged


def test_a_reader_ignores_a_field_that_it_does_not_know_yet():
    body = ProjectApproved(project_id=PROJECT, trust="KCH", reason="fits").encode()[:-1] + b',"later":1}'
    assert ProjectApproved.decode(body).trust == "KCH"


def test_the_text_of_a_query_is_confidential():
    command = RunCohortQuery.decode((GENERATED / "examples" / f"{RunCohortQuery.type_name}.json").read_bytes())
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
