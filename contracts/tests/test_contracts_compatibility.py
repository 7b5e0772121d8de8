"""The gate objects to every kind of change that would break a reader or the past, and to no other."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from flip_contracts.base import Confidential, Open
from flip_contracts.compatibility import Schema, objections
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, create_model

Fields = dict[str, Any]
TEXT: Fields = {"name": (str, ...)}


class Inner(BaseModel):
    """A part of a body."""

    count: int


class Narrowed(BaseModel):
    """The same part, tightened."""

    count: Annotated[int, Field(ge=0)]


def schema(fields: Fields) -> dict[str, Any]:
    return create_model("Sample", **fields).model_json_schema(mode="serialization")


def found(released: Fields, today: Fields) -> list[str]:
    return [str(each) for each in objections(schema(released), schema(today))]


INCOMPATIBLE: dict[str, tuple[Fields, Fields, str]] = {
    "a field is removed": ({**TEXT, "age": (int, ...)}, TEXT, "age: is removed"),
    "an optional field is removed": ({**TEXT, "age": (int, 0)}, TEXT, "age: is removed"),
    "a field is renamed": (TEXT, {"title": (str, ...)}, "name: is removed (renamed to title?)"),
    "a required field is new": (TEXT, {**TEXT, "age": (int, ...)}, "age: is new and required"),
    "an optional field becomes required": ({"age": (int, 0)}, {"age": (int, ...)}, "age: was optional, is required"),
    "another type": (TEXT, {"name": (int, ...)}, "name: was string, is integer"),
    "a number becomes whole": ({"a": (float, ...)}, {"a": (int, ...)}, "a: was number, is integer"),
    "anything becomes something": ({"a": (Any, ...)}, {"a": (str, ...)}, "a: was anything, is string"),
    "null is no longer allowed": ({"a": (str | None, ...)}, {"a": (str, ...)}, "a: null is no longer allowed"),
    "a way of a union is gone": ({"a": (int | str, ...)}, {"a": (int, ...)}, "a: string is no longer allowed"),
    "a constant of a union is gone": (
        {"a": (int | Literal["many"], ...)},
        {"a": (int, ...)},
        'a: "many" is no longer allowed',
    ),
    "the least value rises": ({"a": (int, ...)}, {"a": (Annotated[int, Field(ge=1)], ...)}, "a: minimum is tighter"),
    "the least value is excluded": (
        {"a": (Annotated[float, Field(ge=0)], ...)},
        {"a": (Annotated[float, Field(gt=0)], ...)},
        "a: minimum is tighter",
    ),
    "the greatest value falls": (
        {"a": (Annotated[int, Field(le=9)], ...)},
        {"a": (Annotated[int, Field(le=8)], ...)},
        "a: maximum is tighter",
    ),
    "a text must be longer": (TEXT, {"name": (Annotated[str, Field(min_length=1)], ...)}, "name: minLength is tighter"),
    "a text must be shorter": (
        TEXT,
        {"name": (Annotated[str, Field(max_length=9)], ...)},
        "name: maxLength is tighter",
    ),
    "a list must be longer": (
        {"a": (list[int], ...)},
        {"a": (Annotated[list[int], Field(min_length=1)], ...)},
        "a: minItems is tighter",
    ),
    "a list must be shorter": (
        {"a": (list[int], ...)},
        {"a": (Annotated[list[int], Field(max_length=9)], ...)},
        "a: maxItems is tighter",
    ),
    "entries may not repeat": (
        {"a": (list[int], ...)},
        {"a": (frozenset[int], ...)},
        "a: entries may no longer repeat",
    ),
    "entries are narrower": ({"a": (list[float], ...)}, {"a": (list[int], ...)}, "a[]: was number, is integer"),
    "entries get a type": ({"a": (list[Any], ...)}, {"a": (list[int], ...)}, "a[]: was anything, is integer"),
    "a pattern is new": (
        TEXT,
        {"name": (Annotated[str, Field(pattern="^a")], ...)},
        "name: pattern was free, is ^a",
    ),
    "another pattern": (
        {"name": (Annotated[str, Field(pattern="^a")], ...)},
        {"name": (Annotated[str, Field(pattern="^b")], ...)},
        "name: pattern was ^a, is ^b",
    ),
    "a text gets a format": (TEXT, {"name": (UUID, ...)}, "name: format was free, is uuid"),
    "an open enum loses a value": (
        {"a": (Annotated[Literal["x", "y"], Open("x")], ...)},
        {"a": (Annotated[Literal["x"], Open("x")], ...)},
        'a: "y" is no longer known',
    ),
    "an open enum is closed": (
        {"a": (Annotated[Literal["x", "y"], Open("x")], ...)},
        {"a": (Literal["x", "y"], ...)},
        "a: was open to new values, is closed",
    ),
    "a closed enum loses a value": (
        {"a": (Literal["x", "y"], ...)},
        {"a": (Literal["x"], ...)},
        'a: "y" is no longer known',
    ),
    "a closed enum grows": (
        {"a": (Literal["x", "y"], ...)},
        {"a": (Literal["x", "y", "z"], ...)},
        'a: "z" is new, and readers were not told that the enum may grow',
    ),
    "a text becomes an enum": (TEXT, {"name": (Literal["x", "y"], ...)}, "name: was string, is one of x, y"),
    "a text becomes an open enum": (
        TEXT,
        {"name": (Annotated[Literal["x", "y"], Open("x")], ...)},
        "name: was string, is one of x, y",
    ),
    "an inner field is narrowed": ({"a": (Inner, ...)}, {"a": (Narrowed, ...)}, "a.count: minimum is tighter"),
    "an inner field of what may be null is narrowed": (
        {"a": (Inner | None, None)},
        {"a": (Narrowed | None, None)},
        "a.count: minimum is tighter",
    ),
    "values of a mapping are narrowed": (
        {"a": (dict[str, float], ...)},
        {"a": (dict[str, int], ...)},
        "a[*]: was number, is integer",
    ),
    "names in a mapping are narrowed": (
        {"a": (dict[str, int], ...)},
        {"a": (dict[Annotated[str, Field(pattern="^a")], float], ...)},
        "a[*]: was allowed, is not",
    ),
    "a default means something else": ({"a": (int, 0)}, {"a": (int, 1)}, "a: its default was 0, is 1"),
    "a secret is told": (
        {"a": (Annotated[str, Confidential()], ...)},
        {"a": (str, ...)},
        "a: was confidential, is not",
    ),
    "a word that the gate doesn't know": (
        {"a": (int, ...)},
        {"a": (Annotated[int, Field(multiple_of=2)], ...)},
        "a: the gate can't judge multipleOf",
    ),
}

COMPATIBLE: dict[str, tuple[Fields, Fields]] = {
    "an optional field is new": (TEXT, {**TEXT, "age": (int | None, None)}),
    "a required field becomes optional": ({"a": (int, ...)}, {"a": (int, 0)}),
    "null is allowed": (TEXT, {"name": (str | None, ...)}),
    "another way of a union": (TEXT, {"name": (str | int, ...)}),
    "the ways of a union change places": ({"a": (int | str, ...)}, {"a": (str | int, ...)}),
    "a whole number may be broken, or a text": ({"a": (int, ...)}, {"a": (str | float, ...)}),
    "a whole number may be broken": ({"a": (int, ...)}, {"a": (float, ...)}),
    "something becomes anything": (TEXT, {"name": (Any, ...)}),
    "bounds are loosened": (
        {"a": (Annotated[int, Field(gt=0, le=8)], ...)},
        {"a": (Annotated[int, Field(ge=0, lt=9)], ...)},
    ),
    "bounds go": ({"a": (Annotated[int, Field(ge=0, le=8)], ...)}, {"a": (int, ...)}),
    "lengths are loosened": (
        {"a": (Annotated[str, Field(min_length=2, max_length=3)], ...)},
        {"a": (Annotated[str, Field(min_length=1, max_length=4)], ...)},
    ),
    "a pattern goes": ({"a": (Annotated[str, Field(pattern="^a")], ...)}, {"a": (str, ...)}),
    "entries may repeat": ({"a": (frozenset[int], ...)}, {"a": (list[int], ...)}),
    "an open enum grows": (
        {"a": (Annotated[Literal["x", "y"], Open("x")], ...)},
        {"a": (Annotated[Literal["x", "y", "z"], Open("y")], ...)},
    ),
    "a closed enum is opened": (
        {"a": (Literal["x", "y"], ...)},
        {"a": (Annotated[Literal["x", "y"], Open("x")], ...)},
    ),
    "an enum becomes a text": ({"a": (Literal["x", "y"], ...)}, {"a": (str, ...)}),
    "an inner field is widened": ({"a": (Narrowed, ...)}, {"a": (Inner, ...)}),
    "a mapping takes any name": (
        {"a": (dict[Annotated[str, Field(pattern="^a")], int], ...)},
        {"a": (dict[str, int], ...)},
    ),
    "another text about a field": (
        {"a": (int, Field(title="One", description="Once."))},
        {"a": (int, Field(title="Two", description="Twice."))},
    ),
    "a field becomes confidential": ({"a": (str, ...)}, {"a": (Annotated[str, Confidential()], ...)}),
}


@pytest.mark.parametrize("change", INCOMPATIBLE)
def test_it_objects_when(change: str):
    released, today, objection = INCOMPATIBLE[change]
    assert objection in found(released, today)


@pytest.mark.parametrize("change", COMPATIBLE)
def test_it_does_not_object_when(change: str):
    assert found(*COMPATIBLE[change]) == []


# --- properties ----------------------------------------------------------------------------------------------------

NULL = {"type": "null"}
LOOSER = {
    "minimum": -1,
    "exclusiveMinimum": -1,
    "minLength": -1,
    "minItems": -1,
    "maximum": 1,
    "exclusiveMaximum": 1,
    "maxLength": 1,
    "maxItems": 1,
}


def _text() -> st.SearchStrategy[dict[str, Any]]:
    sizes = {"minLength": st.integers(0, 2), "maxLength": st.integers(3, 5)}
    by_size = st.fixed_dictionaries({"type": st.just("string")}, optional=sizes)
    by_pattern = st.sampled_from(["^a+$", "^[0-9]{2}$"]).map(lambda it: {"type": "string", "pattern": it})
    return by_size | by_pattern


def _number() -> st.SearchStrategy[dict[str, Any]]:
    least, most = st.sampled_from(["minimum", "exclusiveMinimum"]), st.sampled_from(["maximum", "exclusiveMaximum"])
    bounds = st.builds(lambda a, b, c, d: {a: b, c: d}, least, st.integers(-5, 0), most, st.integers(5, 9))
    return st.builds(
        lambda kind, bounds, keep: {"type": kind} | {word: bounds[word] for word in bounds if word in keep},
        st.sampled_from(["integer", "number"]),
        bounds,
        st.sets(st.sampled_from(["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"])),
    )


def _enum() -> st.SearchStrategy[dict[str, Any]]:
    word = st.sampled_from(["enum", "x-extensible-enum"])
    values = st.lists(st.sampled_from("pqrs"), min_size=1, unique=True)
    return st.builds(lambda word, values: {"type": "string", word: values}, word, values)


def _around(below: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.dictionaries(st.sampled_from("abc"), below, min_size=1)
    bodies = st.builds(
        lambda fields, needed: {"type": "object", "properties": fields, "required": sorted(needed & fields.keys())},
        fields,
        st.sets(st.sampled_from("abc")),
    )
    lists = st.builds(
        lambda items, sizes: {"type": "array", "items": items, **sizes},
        below,
        st.fixed_dictionaries({}, optional={"minItems": st.integers(0, 1), "maxItems": st.integers(2, 3)}),
    )
    mappings = below.map(lambda it: {"type": "object", "additionalProperties": it})
    return bodies | lists | mappings


LEAVES = _text() | _number() | _enum() | st.just({"type": "boolean"})
UNIONS = (_text() | _number() | _enum()).map(lambda it: {"anyOf": [it, NULL]}) | _number().map(
    lambda it: {"anyOf": [it, {"type": "string", "const": "many"}]}
)
SCHEMAS = st.recursive(LEAVES | UNIONS, _around, max_leaves=6)


def values(of: Schema) -> st.SearchStrategy[Any]:
    """What may be said under a schema."""
    if "anyOf" in of:
        return st.one_of([values(way) for way in of["anyOf"]])
    if known := [of["const"]] if "const" in of else of.get("enum", of.get("x-extensible-enum")):
        return st.sampled_from(known)
    if of["type"] == "object":
        return _bodies(of)
    if of["type"] == "array":
        return st.lists(values(of["items"]), min_size=of.get("minItems", 0), max_size=of.get("maxItems", 3))
    if "pattern" in of:
        return st.from_regex(of["pattern"].replace("$", r"\Z"))
    plain: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text("ab", max_size=6),
        "integer": st.integers(-9, 12),
        "number": st.integers(-9, 12) | st.floats(-9, 12),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain[of["type"]].filter(Draft202012Validator(dict(of)).is_valid)


def _bodies(of: Schema) -> st.SearchStrategy[Any]:
    if "properties" not in of:
        return st.dictionaries(st.sampled_from("xyz"), values(of["additionalProperties"]), max_size=2)
    fields = {name: values(each) for name, each in of["properties"].items()}
    needed = {name: each for name, each in fields.items() if name in of["required"]}
    return st.fixed_dictionaries(needed, optional={name: each for name, each in fields.items() if name not in needed})


def widenings(of: Schema) -> Iterator[dict[str, Any]]:
    """Every schema that is one step wider."""
    yield {"anyOf": [*of["anyOf"], {"type": "boolean"}]} if "anyOf" in of else {"anyOf": [of, NULL]}
    yield from _wider(of)


def _wider(of: Schema) -> Iterator[dict[str, Any]]:
    for number, way in enumerate(of.get("anyOf", ())):
        yield from ({"anyOf": [*of["anyOf"][:number], it, *of["anyOf"][number + 1 :]]} for it in _wider(way))
    for word, step in LOOSER.items():
        if word in of:
            yield {each: value for each, value in of.items() if each != word}
            yield {**of, word: of[word] + step}
    if of.get("type") == "integer":
        yield {**of, "type": "number"}
    if "pattern" in of:
        yield {"type": "string"}
    if known := of.get("enum", of.get("x-extensible-enum")):
        yield {"type": "string", "x-extensible-enum": [*known, "new"]}
    for word in of.keys() & {"items", "additionalProperties"}:
        yield from ({**of, word: it} for it in widenings(of[word]))
    yield from _wider_body(of)


def _wider_body(of: Schema) -> Iterator[dict[str, Any]]:
    fields = of.get("properties", {})
    if fields:
        yield {**of, "properties": {**fields, "new": {"type": "integer"}}}
    yield from (
        {**of, "required": [each for each in of["required"] if each != name]} for name in of.get("required", ())
    )
    for name, field in fields.items():
        yield from ({**of, "properties": {**fields, name: it}} for it in widenings(field))


@pytest.mark.parametrize("union", [{"anyOf": [{"type": "integer"}]}, {"$ref": "#/$defs/Part"}])
def test_it_objects_to_a_bound_beside_a_union_or_a_reference(union: Schema):
    definitions = {"Part": {"type": "integer"}}
    today = {"$defs": definitions, "properties": {"a": {**union, "minimum": 1}}}
    released = {"$defs": definitions, "properties": {"a": union}}
    assert [str(each) for each in objections(released, today)] == ["a: the gate can't judge minimum"]


@given(SCHEMAS)
def test_a_schema_is_compatible_with_itself(of: dict[str, Any]):
    assert objections(of, of) == []


@given(SCHEMAS, st.data())
def test_widening_is_accepted_and_its_reverse_refused(narrow: dict[str, Any], data: st.DataObject):
    wide = data.draw(st.sampled_from(list(widenings(narrow))))
    assert objections(narrow, wide) == []
    assert objections(wide, narrow) != []


@given(SCHEMAS, st.data())
def test_what_was_said_under_a_schema_is_valid_under_every_schema_that_the_gate_accepts(
    released: dict[str, Any], data: st.DataObject
):
    near = [*widenings(released), *(it for wide in widenings(released) for it in widenings(wide))]
    today = data.draw(st.sampled_from(near) | SCHEMAS)
    for one, other in ((released, today), (today, released)):
        if not objections(one, other):
            said = data.draw(values(one))
            Draft202012Validator(other).validate(said)
