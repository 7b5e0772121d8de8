"""TypeScript types of the messages, made from their JSON Schemas."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flip_contracts.base import Message

Schema = Mapping[str, Any]

_PLAIN: Mapping[str | None, str] = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    None: "unknown",
}
_HEAD = "// Bodies of the messages on the bus. Written by `flip-contracts generate`; change the contracts instead.\n"


def typescript(messages: Iterable[tuple[type[Message], Schema]]) -> str:
    """One module: an interface a message, and `Messages`, which finds each by its CloudEvents type.

    Raises ValueError where two declarations would have one name.
    """
    shared: dict[str, Schema] = {}
    interfaces: dict[str, Schema] = {}
    by_type: dict[str, str] = {}
    for message, schema in messages:
        name = f"{message.__name__.removesuffix(f'V{message.version}')}V{message.version}"
        by_type[message.type_name] = name
        for each, definition in [*schema.get("$defs", {}).items(), (name, schema)]:
            into = interfaces if each == name else shared
            if {**interfaces, **shared}.get(each, definition) != definition:
                raise ValueError(f"two declarations have the name {each}")
            into[each] = definition
    blocks = [_HEAD, *_interfaces(shared), *_interfaces(interfaces), _index(by_type)]
    return "\n".join(blocks)


def _interfaces(declared: Mapping[str, Schema]) -> Iterator[str]:
    for name, schema in sorted(declared.items()):
        yield f"{_comment(schema)}export interface {name} {{\n{''.join(_fields(schema))}}}\n"


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield f"  readonly {_key(name)}{'' if name in required else '?'}: {_type(field)};\n"


def _index(by_type: Mapping[str, str]) -> str:
    entries = "".join(f"  readonly {json.dumps(type_name)}: {name};\n" for type_name, name in sorted(by_type.items()))
    about = "/** Each message's body by the name in its CloudEvents `type`. */\n"
    return f"{about}export interface Messages {{\n{entries}}}\n\nexport type MessageType = keyof Messages;\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else json.dumps(name)


def _comment(schema: Schema) -> str:
    lines = schema.get("description", "").replace("*/", "*\\/").splitlines()
    if len(lines) <= 1:
        return "".join(f"/** {line} */\n" for line in lines)
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */", ""])


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if literals := _literals(schema):
        return " | ".join(literals)
    match schema.get("type"):
        case "array":
            return f"ReadonlyArray<{_type(schema['items'])}>"
        case "object":
            return f"Readonly<Record<string, {_type(_values_of(schema))}>>"
        case plain:
            return _PLAIN[plain]


def _literals(schema: Schema) -> list[str]:
    if "const" in schema:
        return [json.dumps(schema["const"])]
    known = [json.dumps(value) for value in schema.get("enum", schema.get("x-extensible-enum", ()))]
    # An editor offers the values that are known; any other string is possible.
    return [*known, "(string & {})"] if "x-extensible-enum" in schema else known


def _values_of(mapping: Schema) -> Schema:
    others = mapping.get("additionalProperties", True)
    ways = [*mapping.get("patternProperties", {}).values()]
    if len(ways) > 1:
        return {"anyOf": ways}
    return ways[0] if ways else {} if others is True else others
