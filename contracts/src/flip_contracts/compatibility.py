"""Whether today's JSON Schema of a message keeps the promise of a released one.

It does when whatever was said under the released schema is read under today's, and means the same: no field is removed,
renamed, narrowed or newly required, and an enum grows only where its readers were told that it may
(`x-extensible-enum`). Widening is fine. The rules cover the keywords that pydantic writes for the contracts; any other
is objected to, so that nothing slips through unread. Where two schemas can't be compared for sure, it objects. Messages
nest, but don't recur.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_ANNOTATIONS = {"$id", "$defs", "title", "description", "default", "examples", "x-unknown-as", "x-confidential"}
_CONSTRAINTS = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "patternProperties",
    "properties",
    "required",
    "type",
    "uniqueItems",
    "x-extensible-enum",
}
_LEAST = (("minimum", "exclusiveMinimum"), ("minLength", ""), ("minItems", ""))
_MOST = (("maximum", "exclusiveMaximum"), ("maxLength", ""), ("maxItems", ""))


@dataclass(frozen=True, slots=True)
class Objection:
    """What is wrong with a field; `field` is its path, such as `counts.queued`, and empty for the whole body."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field or 'the body'}: {self.why}"


def objections(released: Schema, today: Schema) -> list[Objection]:
    """What readers of a message would meet if `released`, as it once was, became `today`. Nothing: it may."""
    comparison = _Comparison(released.get("$defs", {}), today.get("$defs", {}))
    return list(comparison.whole(released, today, ""))


@dataclass(frozen=True, slots=True)
class _Comparison:
    released_definitions: Schema
    today_definitions: Schema

    def whole(self, released: Schema, today: Schema, at: str) -> Iterator[Objection]:
        """Each way in which a value may be must be one of today's ways still."""
        ways_before, ways = _ways(released, self.released_definitions), _ways(today, self.today_definitions)
        for each in ways if today in ways else [today, *ways]:
            yield from (Objection(at, f"the gate can't judge {word}") for word in _unjudged(each))
        for way in ways_before:
            found = [list(self._way(way, each, at)) for each in ways]
            if not all(found):
                continue
            alike = [one for one, each in zip(found, ways, strict=True) if each.get("type") == way.get("type")]
            if alike or len(ways_before) == len(ways) == 1:
                yield from (alike or found)[0]
            else:
                yield Objection(at, f"{_name(way)} is no longer allowed")

    def _way(self, released: Schema, today: Schema, at: str) -> Iterator[Objection]:
        if not today.keys() & _CONSTRAINTS:
            return
        if today.keys() & {"enum", "const", "x-extensible-enum"}:
            yield from _enumeration(released, today, at)
            return
        if not _takes_type(released, today):
            yield Objection(at, f"was {_name(released)}, is {_name(today)}")
            return
        yield from _limits(released, today, at)
        yield from self._items(released, today, at)
        yield from self._fields(released, today, at)

    def _items(self, released: Schema, today: Schema, at: str) -> Iterator[Objection]:
        if "items" in today:
            yield from self.whole(released.get("items", {}), today["items"], f"{at}[]")

    def _fields(self, released: Schema, today: Schema, at: str) -> Iterator[Objection]:
        before, now = released.get("properties", {}), today.get("properties", {})
        for name, field in before.items():
            here = f"{at}.{name}" if at else name
            if name not in now:
                yield _removed(here, field, {name: each for name, each in now.items() if name not in before})
                continue
            yield from self.whole(field, now[name], here)
            yield from _meaning(field, now[name], here)
        for name in sorted({*today.get("required", ())} - {*released.get("required", ())}):
            here = f"{at}.{name}" if at else name
            yield Objection(here, "was optional, is required" if name in before else "is new and required")
        yield from self._mapping(released, today, at)

    def _mapping(self, released: Schema, today: Schema, at: str) -> Iterator[Objection]:
        """Fields that have no name of their own, as in a mapping: by the pattern of their names, then all others."""
        before, now = released.get("patternProperties", {}), today.get("patternProperties", {})
        others_before, others_now = _others(released), _others(today)
        for pattern in sorted({*before, *now}):
            was, is_ = before.get(pattern, others_before), now.get(pattern, others_now)
            yield from self._maybe(was, is_, f"{at}[{pattern}]")
        yield from self._maybe(others_before, others_now, f"{at}[*]")

    def _maybe(self, released: Schema | None, today: Schema | None, at: str) -> Iterator[Objection]:
        if released is None:
            return
        if today is None:
            yield Objection(at, "was allowed, is not")
            return
        yield from self.whole(released, today, at)


def _ways(schema: Schema, definitions: Schema) -> list[Schema]:
    """A union's alternatives, references followed; a plain schema is its only one."""
    if "$ref" in schema:
        return _ways(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        return [way for each in schema["anyOf"] for way in _ways(each, definitions)]
    return [schema]


def _unjudged(schema: Schema) -> list[str]:
    alone = schema.keys() & {"$ref", "anyOf"}
    return sorted(schema.keys() - (alone or _CONSTRAINTS) - _ANNOTATIONS)


def _takes_type(released: Schema, today: Schema) -> bool:
    was, is_ = released.get("type"), today.get("type")
    return is_ is None or was == is_ or (was, is_) == ("integer", "number")


def _name(schema: Schema) -> str:
    if "const" in schema:
        return f'"{schema["const"]}"'
    return schema.get("type", "anything")


def _enumeration(released: Schema, today: Schema, at: str) -> Iterator[Objection]:
    known, known_before = _values(today), _values(released)
    if known_before is None:
        yield Objection(at, f"was {_name(released)}, is one of {', '.join(map(str, known or ()))}")
        return
    for value in known_before:
        if value not in (known or ()):
            yield Objection(at, f'"{value}" is no longer known')
    if "x-extensible-enum" in today:
        return
    if "x-extensible-enum" in released:
        yield Objection(at, "was open to new values, is closed")
        return
    for value in known or ():
        if value not in known_before:
            yield Objection(at, f'"{value}" is new, and readers were not told that the enum may grow')


def _values(schema: Schema) -> list[Any] | None:
    """The values of an enum, open or closed; None where it is none."""
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum", schema.get("x-extensible-enum"))


def _limits(released: Schema, today: Schema, at: str) -> Iterator[Objection]:
    for words, sign in [(each, 1) for each in _LEAST] + [(each, -1) for each in _MOST]:
        was, is_ = _limit(released, *words, sign), _limit(today, *words, sign)
        if is_ is not None and (was is None or is_ > was):
            yield Objection(at, f"{words[0]} is tighter")
    for word in ("pattern", "format"):
        if word in today and today[word] != released.get(word):
            yield Objection(at, f"{word} was {released.get(word, 'free')}, is {today[word]}")
    if today.get("uniqueItems") and not released.get("uniqueItems"):
        yield Objection(at, "entries may no longer repeat")


def _limit(schema: Schema, inclusive: str, exclusive: str, sign: int) -> tuple[float, bool] | None:
    """A bound that compares as greater the tighter it is."""
    bounds = [(sign * schema[word], word == exclusive) for word in (inclusive, exclusive) if word in schema]
    return max(bounds, default=None)


def _others(schema: Schema) -> Schema | None:
    # Of a mapping whose names have a pattern pydantic writes only that, and reads no other name.
    allowed = schema.get("additionalProperties", "patternProperties" not in schema)
    if isinstance(allowed, bool):
        return {} if allowed else None
    return allowed


def _removed(at: str, field: Schema, new: Mapping[str, Schema]) -> Objection:
    renamed = [name for name, each in new.items() if _bare(each) == _bare(field)]
    return Objection(at, f"is removed (renamed to {renamed[0]}?)" if len(renamed) == 1 else "is removed")


def _bare(field: Schema) -> Schema:
    return {word: value for word, value in field.items() if word not in _ANNOTATIONS}


def _meaning(released: Schema, today: Schema, at: str) -> Iterator[Objection]:
    """A field that is read as before, yet no longer means what it did."""
    if "default" in released and "default" in today and released["default"] != today["default"]:
        yield Objection(at, f"its default was {released['default']}, is {today['default']}")
    if "x-confidential" in released and "x-confidential" not in today:
        yield Objection(at, "was confidential, is not")
