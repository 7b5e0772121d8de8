"""The shape of everything that is said on the bus: topics, and the messages that belong to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NewType, Self, cast, get_args
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, core_schema

UserId = NewType("UserId", UUID)
SessionId = NewType("SessionId", UUID)
ProjectId = NewType("ProjectId", UUID)
ModelId = NewType("ModelId", UUID)
RunId = NewType("RunId", UUID)

TrustCode = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{1,11}$")]
"""Short code of a Trust, such as `KCH`; part of its topics and of its certificate's name."""
NetName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,15}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ReasonCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
"""A stable reason in kebab case. It never holds data of a patient, an address or a query's text."""

Released = Annotated[int, Field(ge=0)] | Literal["suppressed"]
"""A count as it may leave a Trust: zero, at or above the Trust's disclosure threshold, or `suppressed`."""


@dataclass(frozen=True, slots=True)
class Confidential:
    """Marks a field that its reader needs and nobody else may keep: the ledger and logs leave it out."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "x-confidential": True}


@dataclass(frozen=True, slots=True)
class Open:
    """Marks a `Literal` of strings that may grow: `Annotated[Role, Open("viewer")]`.

    A body is read with `unknown_as`, the least that can be meant, in the place of a value that its reader doesn't know
    yet. Who says a message is held to the known values.
    """

    unknown_as: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known: tuple[str, ...] = get_args(source)
        if self.unknown_as not in known:
            raise TypeError(f"{self.unknown_as} is none of {', '.join(known)}")

        def read(value: object) -> object:
            return self.unknown_as if isinstance(value, str) and value not in known else value

        saying = handler(source)
        reading = core_schema.no_info_before_validator_function(read, saying)
        return core_schema.json_or_python_schema(json_schema=reading, python_schema=saying)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        closed = handler(schema)
        known = closed["enum"] if "enum" in closed else [closed["const"]]
        return {"type": "string", "x-extensible-enum": known, "x-unknown-as": self.unknown_as}


HUB = "hub"
"""The owner of a topic that every service of the hub writes."""
HUB_SERVICES = ("auth", "projects", "cohort", "imaging", "files", "scheduler", "trainer-node", "audit")
TRUST_SERVICES = ("cohort", "imaging", "trainer-node")


@dataclass(frozen=True, slots=True)
class Topic:
    """Where messages about one kind of aggregate are said.

    `name` may hold `{trust}`: then there is one topic a Trust. `key` is the field with the aggregate's id, which orders
    the messages. A `local` topic is never relayed: it stays in the event log of the service that owns it.
    """

    name: str
    key: str
    description: str
    owner: str
    readers: frozenset[str] = frozenset()
    partitions: int = 3
    retention_ms: int | None = None
    local: bool = False
    messages: "list[type[Message]]" = field(default_factory=list["type[Message]"], compare=False, repr=False)

    def named(self, trust: str | None) -> str:
        """The topic's name on the broker; `trust` is needed where there is one topic a Trust."""
        if "{trust}" not in self.name:
            return self.name
        if trust is None:
            raise ValueError(f"{self.name} needs the code of a Trust")
        return self.name.replace("{trust}", trust)


def _canonical(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(cast("frozenset[Any]", value), key=str)
    if isinstance(value, UUID):  # a driver's own subclass
        return str(value)
    raise TypeError(type(value).__name__)


class Message(BaseModel):
    """A body on the bus. Unknown fields are ignored, so that an older reader understands a newer writer.

    Two versions live side by side as two classes: `class RunFailedV2(Event, topic=RUN, version=2)` is said as
    `flip.scheduler.RunFailed.v2`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: ClassVar[Topic]
    version: ClassVar[int]
    type_name: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, *, topic: Topic | None = None, version: int = 1, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if topic is None:
            return
        if topic.key not in cls.model_fields:
            raise TypeError(f"{cls.__name__} lacks the field {topic.key} that orders {topic.name}")
        owner = cls.__module__.rsplit(".", 1)[-1].replace("_", "-") if not topic.local else topic.owner
        name = cls.__name__.removesuffix(f"V{version}")
        cls.topic, cls.version, cls.type_name = topic, version, f"flip.{owner}.{name}.v{version}"
        topic.messages.append(cls)
        if REGISTRY.setdefault(cls.type_name, cls) is not cls:
            raise TypeError(f"{cls.type_name} is declared twice")

    def __init_subclass__(cls, *, topic: Topic | None = None, version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @property
    def key(self) -> str:
        """The id of the aggregate that the message is about."""
        return str(getattr(self, self.topic.key))

    def encode(self) -> bytes:
        """Canonical JSON: keys and sets sorted, UTF-8, no blanks."""
        return orjson.dumps(self.model_dump(), default=_canonical, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Parse a body from the bus. Raises pydantic's ValidationError, naming each wrong field."""
        return cls.model_validate_json(body)

    @classmethod
    def body_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the body."""
        return {"$id": f"urn:flip:schema:{cls.type_name}", **cls.model_json_schema(mode="serialization")}

    def public(self) -> Mapping[str, Any]:
        """The body without its confidential fields."""
        hidden = {n for n, f in type(self).model_fields.items() if any(isinstance(m, Confidential) for m in f.metadata)}
        return {name: value for name, value in orjson.loads(self.encode()).items() if name not in hidden}


REGISTRY: dict[str, type[Message]] = {}
"""Every message by the name that stands in the CloudEvents header `ce_type`."""


class Event(Message):
    """A fact, in the past tense, complete in itself, with ids instead of copies."""


class Command(Message):
    """What the hub asks of one Trust, in the imperative."""


class Report(Message):
    """What a Trust says. The topic it came in on is who said it; its reader at the hub says it again as an event."""
