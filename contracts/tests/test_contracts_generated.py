"""What is generated is true to the contracts, complete, and committed as it is generated."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from flip_contracts.base import Message, Topic
from flip_contracts.catalogue import messages, topics
from flip_contracts.examples import examples_of
from flip_contracts.generate import documents, write
from flip_contracts.kafka import TRUST_PARAMETER, resources
from flip_contracts.typescript import typescript
from jsonschema import Draft202012Validator

GENERATED = Path(__file__).parents[1] / "generated"
TYPESCRIPT = documents()["typescript/messages.ts"].decode()
CODES = ["KCH", "UCLH"]


def test_what_is_committed_is_what_is_generated_and_nothing_else():
    committed = {str(file.relative_to(GENERATED)): file.read_bytes() for file in GENERATED.rglob("*") if file.is_file()}
    assert committed.keys() == documents().keys()
    assert [path for path, body in documents().items() if committed[path] != body] == []


def test_what_is_stale_goes_when_it_is_generated_anew(tmp_path: Path):
    stale = tmp_path / "schemas" / "flip.auth.Forgotten.v1.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    write(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} == documents().keys()


# --- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.type_name)
def test_examples_fit_their_schema_and_are_read(message: type[Message]):
    schema = message.body_schema()
    for example in examples_of(schema):
        Draft202012Validator(schema).validate(example)
        message.decode(orjson.dumps(example))


def test_examples_hold_every_value_every_way_and_only_what_must_be():
    schema: dict[str, Any] = {
        "properties": {
            "kind": {"enum": ["a", "b", "c"], "type": "string"},
            "count": {"anyOf": [{"type": "integer"}, {"enum": ["few", "many"], "type": "string"}, {"type": "null"}]},
            "sure": {"type": "boolean"},
        },
        "required": ["kind"],
    }
    examples: list[Any] = examples_of(schema)
    assert {each["kind"] for each in examples} == {"a", "b", "c"}
    assert {each["count"] for each in examples if "count" in each} == {12, "few", "many", None}
    assert {each["sure"] for each in examples if "sure" in each} == {True, False}
    assert {"kind": "a"} in examples


# --- TypeScript ----------------------------------------------------------------------------------------------------


def interfaces() -> dict[str, dict[str, str]]:
    """Each interface's fields with their types; a field that may be missing ends with a question mark."""
    blocks = re.findall(r"^export interface (\w+) \{\n(.*?)^\}$", TYPESCRIPT, re.MULTILINE | re.DOTALL)
    return {name: dict(re.findall(r"^  readonly (\S+): (.+);$", body, re.MULTILINE)) for name, body in blocks}


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.type_name)
def test_a_messages_type_has_its_fields_and_says_which_may_be_missing(message: type[Message]):
    name = interfaces()["Messages"][f'"{message.type_name}"']
    schema = message.body_schema()
    assert interfaces()[name].keys() == {
        field if field in schema["required"] else f"{field}?" for field in schema["properties"]
    }


def test_every_name_that_a_type_uses_is_declared():
    known = {*interfaces(), "string", "number", "boolean", "null", "unknown", "Readonly", "Record", "ReadonlyArray"}
    for fields in interfaces().values():
        for type_ in fields.values():
            assert {*re.findall(r"\w+", re.sub(r'"[^"]*"', "", type_))} <= known


def test_an_open_enum_offers_its_values_and_takes_any_other():
    assert interfaces()["RoleChangedV1"]["role"] == '"viewer" | "researcher" | "admin" | (string & {})'


def test_the_types_compile(tmp_path: Path):
    """With the compiler where it is installed; otherwise every line has one of the few shapes that are written."""
    if compiler := shutil.which("tsc"):
        (tmp_path / "messages.ts").write_text(TYPESCRIPT)
        subprocess.run([compiler, "--strict", "--noEmit", str(tmp_path / "messages.ts")], check=True)
    shape = re.compile(
        r"|//.*|/\*\*.*\*/|/\*\*| \*(?!.*\*/).*| \*/|export interface \w+ \{|\}"
        r"|export type MessageType = keyof Messages;"
        r'|  readonly (?:\w+|"[\w.-]+")\??: [^;]+;'
    )
    assert [line for line in TYPESCRIPT.splitlines() if not shape.fullmatch(line)] == []
    assert TYPESCRIPT.count("{\n") == len(re.findall(r"^\}$", TYPESCRIPT, re.MULTILINE))


def test_two_declarations_of_one_name_are_refused():
    class First(Message):
        """One of them."""

    First.topic, First.version = Topic("flip.test", key="a", owner="test", description=""), 1
    First.type_name = "flip.test.First.v1"
    one = {"properties": {}, "$defs": {"Part": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
    other = {"properties": {}, "$defs": {"Part": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    with pytest.raises(ValueError, match="Part"):
        typescript([(First, one), (First, other)])


# --- Kafka ---------------------------------------------------------------------------------------------------------


def items(kind: str, of: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in of["items"] if each["kind"] == kind]


def rights(of: dict[str, Any]) -> set[tuple[str, str, str, str, str]]:
    return {
        (user["metadata"]["name"], *(right["resource"][part] for part in ("type", "name", "patternType")), operation)
        for user in items("KafkaUser", of)
        for right in user["spec"]["authorization"]["acls"]
        for operation in right["operations"]
    }


def test_a_principal_may_do_what_the_catalogue_says_and_nothing_else():
    granted = {right for right in rights(resources(CODES)) if right[1] == "topic"}
    wanted = {
        (principal.lower(), "topic", topic.name, "literal", operation)
        for topic in topics(CODES)
        for operation, principals in (("Read", topic.readers), ("Write", topic.writers))
        for principal in principals
    }
    assert granted == wanted


def test_no_right_is_listed_that_grants_nothing():
    users = items("KafkaUser", resources(CODES))
    assert all(right["operations"] for user in users for right in user["spec"]["authorization"]["acls"])


def test_a_trust_has_rights_on_its_own_topics_and_groups_only():
    assert {right[1:] for right in rights(resources(CODES)) if right[0] == "trust.kch"} == {
        ("topic", "flip.trust.KCH.commands", "literal", "Read"),
        ("topic", "flip.trust.KCH.reports", "literal", "Write"),
        ("group", "KCH.", "prefix", "Read"),
    }


def test_no_group_of_one_reader_belongs_to_another():
    groups = [name for _, kind, name, _, _ in rights(resources(CODES)) if kind == "group"]
    assert not [(one, other) for one in groups for other in groups if one != other and other.startswith(one)]


def test_every_topic_is_made_as_the_catalogue_declares_it():
    made = [topic["spec"] for topic in items("KafkaTopic", resources(CODES))]
    assert [(spec["topicName"], spec["partitions"]) for spec in made] == [
        (topic.name, topic.partitions) for topic in topics(CODES)
    ]
    assert {spec["config"]["retention.ms"] for spec in made} == {-1}


def test_names_are_such_as_kubernetes_takes():
    names = [each["metadata"]["name"] for each in resources(CODES)["items"]]
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name) for name in names)
    assert len({(each["kind"], each["metadata"]["name"]) for each in resources(CODES)["items"]}) == len(names)


def test_what_holds_the_parameter_stands_for_one_a_trust():
    template = orjson.loads(documents()["kafka/strimzi.json"])
    spelt: set[tuple[str, ...]] = set()
    for user, *right in rights(template):
        for code in CODES if TRUST_PARAMETER in f"{user}{right}" else [""]:
            parts = [part.replace(TRUST_PARAMETER, code) for part in right]
            spelt.add((user.replace(TRUST_PARAMETER, code.lower()), *parts))
    assert spelt == rights(resources(CODES))
