"""An aggregate: what its stream of events adds up to. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Generic, TypeVar

from flip_contracts.base import Message, Topic

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S]):
    """A kind of aggregate: the topic its events belong to, the state before the first, and how an event changes it."""

    topic: Topic
    initial: S
    evolve: Callable[[S, Message], S]

    def after(self, events: Iterable[Message]) -> S:
        """The state that these events lead to."""
        return reduce(self.evolve, events, self.initial)
