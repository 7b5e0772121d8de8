"""What follows from the contracts: JSON Schemas, examples, AsyncAPI, TypeScript types, topics and rights."""

from pathlib import Path
from typing import Any

import orjson

from flip_contracts.base import Command, Message
from flip_contracts.catalogue import DECLARED, messages, topics
from flip_contracts.examples import examples_of
from flip_contracts.kafka import TRUST_PARAMETER, resources
from flip_contracts.typescript import typescript


def documents() -> dict[str, bytes]:
    """Every document by its path, the same every time."""
    schemas = [(message, message.body_schema()) for message in messages()]
    found: dict[str, bytes] = {
        "asyncapi.json": _json(asyncapi()),
        "topics.json": _json(catalogue()),
        "kafka/strimzi.json": _json(resources([TRUST_PARAMETER])),
        "typescript/messages.ts": typescript(schemas).encode(),
    }
    for message, schema in schemas:
        found[f"schemas/{message.type_name}.json"] = _json(schema)
        found[f"examples/{message.type_name}.json"] = _json(examples_of(schema))
    return found


def write(folder: Path) -> None:
    """Make `folder` hold all documents and nothing else."""
    wanted = {folder / path: body for path, body in documents().items()}
    for stale in [file for file in folder.rglob("*") if file.is_file() and file not in wanted]:
        stale.unlink()
    for file, body in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the whole bus."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for declared in DECLARED:
        channel = channels.setdefault(
            declared.name, {"address": declared.name, "description": declared.description, "messages": {}}
        )
        if TRUST_PARAMETER in declared.name:
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
    """Every topic with who may write and read it; `{trust}` stands for the code of a Trust."""
    return [
        {
            "name": topic.name,
            "partitions": topic.partitions,
            "retention_ms": topic.retention_ms,
            "writers": sorted(topic.writers),
            "readers": sorted(topic.readers),
        }
        for topic in topics([TRUST_PARAMETER])
    ]


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
