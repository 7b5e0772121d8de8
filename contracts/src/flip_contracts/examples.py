"""Examples of a message, made from its JSON Schema; the same every time."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_BY_FORMAT = {
    "uuid": "0193a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b",
    "date-time": "2026-01-02T03:04:05Z",
}
_BY_PATTERN = {
    "^[A-Z][A-Z0-9]{1,11}$": "KCH",
    "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,7}$": "trainer.py",
    "^[a-z][a-z0-9]{0,15}$": "net1",
    "^[0-9a-f]{64}$": "ab" * 32,
    "^[a-z][a-z0-9-]{0,63}$": "a-reason",
}


def examples_of(schema: Schema) -> list[object]:
    """Bodies that together hold every field, every value of its enums, every way of its unions, and only what must be.

    Raises KeyError for a pattern or a format of which no example is known.
    """
    definitions = schema.get("$defs", {})
    full = [_example(schema, definitions, turn) for turn in range(_turns(schema, definitions))]
    required: set[str] = {*schema.get("required", ())}
    least = {name: each for name, each in full[0].items() if name in required}
    return full if least in full else [*full, least]


def _example(schema: Schema, definitions: Schema, turn: int) -> Any:
    """An example that takes the alternative whose turn it is, wherever there are some."""
    if "$ref" in schema:
        return _example(_target(schema, definitions), definitions, turn)
    if ways := schema.get("anyOf"):
        return _example(ways[turn % len(ways)], definitions, turn // len(ways))
    if values := _values(schema):
        return values[turn % len(values)]
    if "properties" in schema:
        return {name: _example(each, definitions, turn) for name, each in sorted(schema["properties"].items())}
    return _plain(schema, definitions, turn)


def _plain(schema: Schema, definitions: Schema, turn: int) -> object:
    match schema.get("type"):
        case "object":
            return dict(_entry(pattern, each, definitions, turn) for pattern, each in _entries(schema))
        case "array":
            return [_example(schema["items"], definitions, turn)]
        case "string":
            return _text(schema)
        case kind:
            numbers = {"integer": schema.get("minimum", 0) + 12, "number": 0.75}
            return {**numbers, "boolean": turn % 2 == 0, "null": None, None: "anything"}[kind]


def _target(schema: Schema, definitions: Schema) -> Schema:
    return definitions[schema["$ref"].rsplit("/", 1)[-1]]


def _values(schema: Schema) -> list[object]:
    return [schema["const"]] if "const" in schema else schema.get("enum", schema.get("x-extensible-enum", []))


def _entries(schema: Schema) -> list[tuple[str, Schema]]:
    others = schema.get("additionalProperties", True)
    return [*schema.get("patternProperties", {}).items()] or [("", {} if others is True else others)]


def _entry(pattern: str, schema: Schema, definitions: Schema, turn: int) -> tuple[str, object]:
    return _BY_PATTERN[pattern] if pattern else "a-name", _example(schema, definitions, turn)


def _text(schema: Schema) -> str:
    if "format" in schema:
        return _BY_FORMAT[schema["format"]]
    return _BY_PATTERN[schema["pattern"]] if "pattern" in schema else "text"


def _turns(schema: Schema, definitions: Schema) -> int:
    """How many turns it takes until every alternative in a schema was taken."""
    if "$ref" in schema:
        return _turns(_target(schema, definitions), definitions)
    if ways := schema.get("anyOf"):
        return len(ways) * max(_turns(way, definitions) for way in ways)
    below = [*schema.get("properties", {}).values()]
    if schema.get("type") == "object" and not below:
        below = [each for _, each in _entries(schema)]
    if schema.get("type") == "array":
        below = [schema["items"]]
    own = 2 if schema.get("type") == "boolean" else len(_values(schema))
    return max([1, own, *(_turns(each, definitions) for each in below)])
