"""What was released: every message as it stood at each release that changed it, and the promise to keep reading it.

The history is a folder with one file a message's type. A file holds the type's editions, oldest first; an edition is
never changed again.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from flip_contracts.base import Message
from flip_contracts.compatibility import Schema, objections
from flip_contracts.examples import examples_of


class Edition(BaseModel):
    """A message as it was released first under the name `released`: where it is said, its schema, its examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    released: str
    topic: str
    key: str
    body: dict[str, Any]
    examples: list[Any]


_EDITIONS = TypeAdapter(list[Edition])


class Incompatible(Exception):
    """Today's messages break a promise; each line names a message, a field and what is wrong."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def read(folder: Path) -> dict[str, list[Edition]]:
    """The editions of every type that was ever released. Raises ValidationError for a damaged file."""
    return {file.stem: _EDITIONS.validate_json(file.read_bytes()) for file in sorted(folder.glob("*.json"))}


def check(folder: Path, messages: Iterable[type[Message]]) -> None:
    """Hold today's messages against all that was released. Raises Incompatible, and ValueError without a history."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    today = {message.type_name: message for message in messages}
    lines: list[str] = []
    for type_name, message in today.items():  # a schema that is not even compatible with itself can't be judged later
        schema = message.body_schema()
        lines += [f"{type_name}: {each}" for each in objections(schema, schema)]
    for type_name, editions in read(folder).items():
        message = today.get(type_name)
        if message is None:
            lines.append(f"{type_name}: is removed; what was said as {editions[0].released} must stay readable")
            continue
        for edition in editions:
            lines += [f"{type_name}: {line} (since {edition.released})" for line in _broken(edition, message)]
    if lines:
        raise Incompatible(list(dict.fromkeys(lines)))


def _broken(edition: Edition, message: type[Message]) -> Iterator[str]:
    for what, was, is_ in (
        ("topic", edition.topic, message.topic.name),
        ("key", edition.key, message.topic.key),
    ):
        if was != is_:
            yield f"its {what} was {was}, is {is_}"
    yield from map(str, objections(edition.body, message.body_schema()))
    for number, example in enumerate(edition.examples, start=1):
        try:
            message.decode(orjson.dumps(example))
        except ValidationError as error:
            fields = sorted({".".join(map(str, each["loc"])) or "the body" for each in error.errors()})
            yield f"{', '.join(fields)}: example {number} is no longer read"


def release(folder: Path, name: str, messages: Iterable[type[Message]]) -> list[str]:
    """Add an edition, named `name`, of every message that differs from its last one; return their types.

    Raises Incompatible, and ValueError where `name` is taken by an earlier release; no edition is added then.
    """
    today = list(messages)
    folder.mkdir(parents=True, exist_ok=True)
    check(folder, today)
    known = read(folder)
    if any(edition.released == name for editions in known.values() for edition in editions):
        raise ValueError(f"{name} is released already")
    changed: list[str] = []
    for message in today:
        editions, edition = known.get(message.type_name, []), _edition(name, message)
        if editions and editions[-1].model_copy(update={"released": name}) == edition:
            continue
        _write(folder / f"{message.type_name}.json", [*editions, edition])
        changed.append(message.type_name)
    return changed


def _edition(name: str, message: type[Message]) -> Edition:
    schema = message.body_schema()
    return Edition(
        released=name,
        topic=message.topic.name,
        key=message.topic.key,
        body=_bare(schema),
        examples=examples_of(schema),
    )


def _bare(schema: Schema) -> dict[str, Any]:
    """A schema without its texts, which promise nothing."""
    named = ("properties", "patternProperties", "$defs")
    return {
        word: {name: _bare(each) for name, each in value.items()} if word in named else _bare_value(value)
        for word, value in schema.items()
        if word not in {"$id", "title", "description"}
    }


def _bare_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _bare(value)  # type: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return [_bare_value(each) for each in value]  # type: ignore[reportUnknownVariableType]
    return value


def _write(file: Path, editions: list[Edition]) -> None:
    body = [edition.model_dump() for edition in editions]
    file.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
