"""Write what follows from the contracts: JSON Schemas, examples, the AsyncAPI document and the topic catalogue.

An example that is there already is history: it is kept as it is, and every one must still parse.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from flip_contracts.base import Command, Message
from flip_contracts.catalogue import DECLARED, messages, topics

TEMPLATE_TRUST = "TRUST"
_EXAMPLES: dict[str, object] = {
    "uuid": "0193a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b",
    "date-time": "2026-01-02T03:04:05Z",
}
_PATTERNS: dict[str, str] = {
    "^[A-Z][A-Z0-9]{1,11}$": "KCH",
    "^[a-z][a-z0-9]{0,15}$": "net1",
    "^[0-9a-f]{64}$": "ab" * 32,
    "^[a-z][a-z0-9-]{0,63}$": "a-reason",
}


def example_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> object:
    """A value that fits a JSON Schema as pydantic writes them; the same every time."""
    if "$ref" in schema:
        return example_of(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], definitions)
    return _plain_example(schema, definitions)


def _plain_example(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> object:
    kind = schema.get("type")
    if "properties" in schema:
        return {name: example_of(each, definitions) for name, each in sorted(schema["properties"].items())}
    if kind == "object":
        return {"KCH": example_of(_values_of(schema), definitions)}
    if kind == "array":
        return [example_of(schema.get("items", {}), definitions)]
    if kind == "string":
        return _EXAMPLES.get(schema.get("format", "")) or _PATTERNS.get(schema.get("pattern", ""), "text")
    return {"integer": schema.get("minimum", 0) + 12, "number": 0.75, "boolean": True, None: "anything"}[kind]


def _values_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    by_pattern = list(schema.get("patternProperties", {}).values())
    of = by_pattern[0] if by_pattern else schema.get("additionalProperties")
    return of if isinstance(of, dict) else {}  # type: ignore[reportUnknownVariableType]


def schema_of(message: type[Message]) -> dict[str, Any]:
    """The JSON Schema of a message's body."""
    return {"$id": f"urn:flip:schema:{message.type_name}", **message.model_json_schema(mode="serialization")}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the whole bus."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for declared in DECLARED:
        channel = channels.setdefault(
            declared.name, {"address": declared.name, "description": declared.description, "messages": {}}
        )
        if "{trust}" in declared.name:
            channel["parameters"] = {"trust": {"description": "The code of a Trust."}}
        for message in declared.messages:
            channel["messages"][message.type_name] = _asyncapi_message(message)
        says = operations.setdefault(
            f"say:{declared.owner}:{declared.name}",
            {"action": "send", "channel": {"$ref": "#/channels/" + declared.name.replace("/", "~1")}, "messages": []},
        )
        says["messages"] += [_reference(declared.name, message.type_name) for message in declared.messages]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "FLIP event backbone", "version": "1"},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def _reference(channel: str, message: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _asyncapi_message(message: type[Message]) -> dict[str, Any]:
    return {
        "name": message.type_name,
        "title": message.__name__,
        "summary": (message.__doc__ or "").strip(),
        "x-kind": "command" if issubclass(message, Command) else "fact",
        "payload": {"$ref": f"schemas/{message.type_name}.json"},
    }


def catalogue() -> list[dict[str, Any]]:
    """Every topic with who may write and read it; `TRUST` stands for the code of a Trust."""
    return [
        {
            "name": topic.name,
            "partitions": topic.partitions,
            "retention_ms": topic.retention_ms,
            "writers": sorted(topic.writers),
            "readers": sorted(topic.readers),
        }
        for topic in topics([TEMPLATE_TRUST])
    ]


def write(folder: Path) -> None:
    """Write all documents into `folder`."""
    schemas, examples = folder / "schemas", folder / "examples"
    for each in (schemas, examples):
        each.mkdir(parents=True, exist_ok=True)
    wanted = {f"{message.type_name}.json" for message in messages()}
    for stale in {file.name for file in schemas.iterdir()} - wanted:
        (schemas / stale).unlink()
    for message in messages():
        schema = schema_of(message)
        _write_json(schemas / f"{message.type_name}.json", schema)
        example = examples / f"{message.type_name}.json"
        if not example.exists():
            _write_json(example, example_of(schema, schema.get("$defs", {})))
    _write_json(folder / "asyncapi.json", asyncapi())
    _write_json(folder / "topics.json", catalogue())


def _write_json(file: Path, value: object) -> None:
    file.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def main() -> None:
    """`flip-contracts FOLDER` writes the documents there."""
    write(Path(sys.argv[1]))
