"""How a service hears: typed handlers.

Each is a projection (pure bookkeeping, replayed), a reaction (it acts, and is never replayed) or, in `audit` alone, a
record (it keeps what was said for ever, and is never made again).
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from flip_contracts.base import Message, Report, TrustCode
from flip_contracts.cloudevents import Envelope

from flip_chassis.database import Connection
from flip_chassis.log import Said
from flip_chassis.settings import Settings
from flip_chassis.work import Work

Function = Callable[..., Awaitable[None]]
Kind = Literal["projection", "reaction", "record"]


class Transient(Exception):
    """What a handler raises when the same message may succeed later."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that hears one type of message. It takes the message first, then by annotation what it asks for:
    `Connection` (this transaction's), `Work` (reactions only) and `Envelope` (who said it, when)."""

    kind: Kind
    message: type[Message]
    function: Function
    wants: tuple[str, ...]

    async def __call__(self, said: Said, work: Work) -> None:
        given: dict[str, Any] = {"db": work.db, "work": work, "envelope": said.envelope}
        await self.function(said.message, *(given[name] for name in self.wants))

    async def project(self, said: Said, db: Connection) -> None:
        """Run a projection outside of any work."""
        await self.function(said.message, *[db if want == "db" else said.envelope for want in self.wants])


def projection(function: Function) -> Handler:
    """Declare a projection: it may only write this service's projected tables, from the message alone."""
    return _declare("projection", function)


def reaction(function: Function) -> Handler:
    """Declare a reaction: it may decide and say something through `Work`."""
    return _declare("reaction", function)


def record(message: type[Message], keep: Function) -> Handler:
    """Declare that `keep(said, db)` is to be called with all messages of this type that a poll brings."""
    return Handler("record", message, keep, ())


def _declare(kind: Kind, function: Function) -> Handler:
    names = list(inspect.signature(function).parameters)
    hints = get_type_hints(function)
    message, *others = (hints[name] for name in names)
    if not (inspect.isclass(message) and issubclass(message, Message)):
        raise TypeError(f"{function.__qualname__} must take a message first")
    wants = tuple(_want(function, kind, hint) for hint in others)
    return Handler(kind, message, function, wants)


def _want(function: Function, kind: Kind, hint: Any) -> str:
    if hint == Connection:
        return "db"
    if hint is Envelope:
        return "envelope"
    if hint is Work and kind == "reaction":
        return "work"
    raise TypeError(f"{function.__qualname__}: a {kind} can't be given {hint}")


class Handlers:
    """The handlers of a service by the type of message they hear."""

    def __init__(self, settings: Settings, handlers: Iterable[Handler]) -> None:
        self._settings = settings
        self._by_type: dict[str, list[Handler]] = {}
        for handler in handlers:
            if handler.kind == "reaction" and is_own(handler.message, settings):
                raise TypeError(f"{handler.function.__qualname__}: decide it where {handler.message.__name__} is said")
            self._by_type.setdefault(handler.message.type_name, []).append(handler)

    def of(self, type_name: str) -> list[Handler]:
        """The handlers of a type, in the order of their declaration."""
        return self._by_type.get(type_name, [])

    def messages(self) -> list[type[Message]]:
        """The types that are heard."""
        return [handlers[0].message for handlers in self._by_type.values()]

    def heard(self, settings: Settings) -> list[str]:
        """The topics to subscribe to: of every type that is heard and not said by this process itself."""
        names: set[str] = set()
        for message in self.messages():
            if is_own(message, settings):
                continue
            codes = {settings.trust} if settings.trust or "{trust}" not in message.topic.name else settings.trusts
            names |= {message.topic.named(code) for code in codes}
        return sorted(names)

    def projected(self) -> list[str]:
        """The types that projections hear."""
        return [name for name, found in self._by_type.items() if any(each.kind == "projection" for each in found)]

    async def replay(self, said: Said, db: Connection) -> None:
        """Run the projections of something that took effect once before; its reactions are not run again."""
        for handler in self.of(said.envelope.type):
            if handler.kind == "projection":
                await handler.project(said, db)

    async def project(self, said: Said, db: Connection) -> None:
        """Run the projections of something that this process just said, in the same transaction, and record it.

        What it says on a topic that it shares with others it hears like theirs.
        """
        if not is_own(type(said.message), self._settings):
            return
        for handler in self.of(said.envelope.type):
            if handler.kind == "record":
                await handler.function([said], db)
            else:
                await handler.project(said, db)


def is_own(message: type[Message], settings: Settings) -> bool:
    """Whether this process is the one that says messages of this type."""
    if message.topic.local:
        return True
    if issubclass(message, Report):
        return settings.trust is not None
    return settings.trust is None and message.topic.owner == settings.service


def trust_of(said: Envelope) -> TrustCode:
    """The Trust whose topic the message came in on. Raises ValueError for a topic of no Trust."""
    flip, trust, code, *_ = [*said.topic.split("."), "", ""]
    if (flip, trust) != ("flip", "trust") or not code:
        raise ValueError(f"{said.topic} belongs to no Trust")
    return code
