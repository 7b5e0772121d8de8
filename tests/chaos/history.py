"""Whether what took effect follows from what was said: a pure judgement of recorded histories.

A stream is one service's messages about one aggregate; its versions count from 1. The promises judged here: nothing
committed is lost, nothing takes effect twice in a consumer, the events of a stream take effect in order, and a stream's
versions have no gap. In the manner of Elle, the histories alone decide: no clock, no knowledge of the faults.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal
from uuid import UUID

Stream = tuple[str, str, str]
Kind = Literal["lost", "doubled", "reordered", "gap", "invented"]
KINDS: tuple[Kind, ...] = ("lost", "doubled", "reordered", "gap", "invented")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: who said it, of which aggregate, as which version of the stream."""

    id: UUID
    source: str
    topic: str
    key: str
    version: int
    cause: UUID | None = None
    """The event that it is a reaction to."""

    @property
    def stream(self) -> Stream:
        return self.source, self.topic, self.key

    def __str__(self) -> str:
        return f"{self.source} {self.topic}/{self.key}@{self.version} ({self.id})"


@dataclass(frozen=True, slots=True)
class Reaction:
    """`service` answers every event of `topic` by one event of its own."""

    service: str
    topic: str


@dataclass(frozen=True, slots=True)
class History:
    """What a run has left behind."""

    logged: Sequence[Event]
    """The rows of every service's event log."""
    committed: Sequence[Event]
    """What writers noted, outside of the database, after they saw their transaction committed."""
    undone: frozenset[UUID]
    """What writers appended in transactions that they took back."""
    effects: Mapping[str, Sequence[Event]]
    """What took effect in each consumer, in the order in which it did."""
    parked: Mapping[str, Sequence[Event]]
    """What waits in each consumer because of a failure, in the order in which it will go on."""
    hears: Mapping[str, frozenset[str]]
    """The topics that each consumer hears."""
    reactions: Sequence[Reaction] = field(default=())
    earlier: frozenset[UUID] = frozenset()
    """What other runs on the same topics have said: a broker that is killed brings removed records back."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and the events that show it."""

    kind: Kind
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} in {self.where}: {self.text}"


def violations(history: History) -> list[Violation]:
    """Every broken promise that the history shows, the event logs' own first."""
    return [
        *_of_logs(history),
        *(violation for consumer in sorted(history.hears) for violation in _of_consumer(history, consumer)),
        *(violation for reaction in history.reactions for violation in _of_reaction(history, reaction)),
    ]


def _of_logs(history: History) -> Iterator[Violation]:
    logged = {event.id for event in history.logged}
    for event in history.committed:
        if event.id not in logged:
            yield Violation("lost", f"{event.source}'s log", f"{event} was committed and is gone")
    for event in history.logged:
        if event.id in history.undone:
            yield Violation("invented", f"{event.source}'s log", f"{event} was taken back and is there")
    for stream, events in _by_stream(history.logged).items():
        versions = sorted(event.version for event in events)
        for number, version in enumerate(versions, start=1):
            if version != number:
                missing = f"version {version} stands where {number} should"
                yield Violation("gap", f"{stream[0]}'s log", f"{'/'.join(stream[1:])}: {missing}")
                break


def _of_consumer(history: History, consumer: str) -> Iterator[Violation]:
    effects, parked = history.effects.get(consumer, ()), history.parked.get(consumer, ())
    due = {event.id: event for event in history.logged if event.topic in history.hears[consumer]}
    times = Counter(event.id for event in effects)
    waiting = Counter(event.id for event in parked)
    for event in due.values():
        if not times[event.id] and not waiting[event.id]:
            yield Violation("lost", consumer, f"{event} never took effect")
    for event in {event.id: event for event in (*effects, *parked)}.values():
        if event.id not in due and event.id not in history.earlier:
            yield Violation("invented", consumer, f"{event} was never committed")
        if times[event.id] > 1:
            yield Violation("doubled", consumer, f"{event} took effect {times[event.id]} times")
        if waiting[event.id] and times[event.id] + waiting[event.id] > 1:
            yield Violation("doubled", consumer, f"{event} waits although it took effect or waits already")
    yield from _out_of_order(consumer, effects, parked)


def _out_of_order(consumer: str, effects: Sequence[Event], parked: Sequence[Event]) -> Iterator[Violation]:
    """What overtook an earlier version of its stream. What waits counts as yet to come."""
    for events in _by_stream(_first_times((*effects, *parked))).values():
        for before, after in pairwise(events):
            if after.version < before.version:
                yield Violation("reordered", consumer, f"{before} overtook {after}")


def _of_reaction(history: History, reaction: Reaction) -> Iterator[Violation]:
    where = f"{reaction.service}'s reactions"
    answers: dict[UUID, list[Event]] = defaultdict(list)
    for event in history.logged:
        if event.source == reaction.service and event.cause:
            answers[event.cause].append(event)
    causes = [event for event in history.effects.get(reaction.service, ()) if event.topic == reaction.topic]
    for cause in _first_times(causes):
        count = len(answers[cause.id])
        if count != 1:
            yield Violation("doubled" if count else "lost", where, f"{cause} was answered {count} times")
    for causes_of_stream in _by_stream(_first_times(causes)).values():
        said = [answer for cause in causes_of_stream for answer in answers[cause.id]]
        for events in _by_stream(said).values():
            for before, after in pairwise(events):
                if after.version < before.version:
                    yield Violation("reordered", where, f"{before} answers what came before {after} was asked for")


def _first_times(events: Iterable[Event]) -> list[Event]:
    first: dict[UUID, Event] = {}
    for event in events:
        first.setdefault(event.id, event)
    return list(first.values())


def _by_stream(events: Iterable[Event]) -> dict[Stream, list[Event]]:
    streams: dict[Stream, list[Event]] = defaultdict(list)
    for event in events:
        streams[event.stream].append(event)
    return streams
