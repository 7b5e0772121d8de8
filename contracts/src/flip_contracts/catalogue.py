"""The topic catalogue: which topics a deployment with given Trusts has, and who may write and read each."""

from collections.abc import Iterable
from dataclasses import dataclass

from flip_contracts import audit, auth, cohort, files, imaging, operations, projects, scheduler, trainer_node
from flip_contracts import topics as declarations
from flip_contracts.base import HUB, HUB_SERVICES, Message
from flip_contracts.base import Topic as Declared

MODULES = (auth, projects, cohort, imaging, files, scheduler, trainer_node, audit, operations)
DECLARED: tuple[Declared, ...] = tuple(value for value in vars(declarations).values() if isinstance(value, Declared))


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic on the broker. Principals are `service.<name>` and `trust.<CODE>`; `retention_ms` None keeps for ever."""

    name: str
    partitions: int
    retention_ms: int | None
    writers: frozenset[str]
    readers: frozenset[str]


def topics_of(declared: Declared, trusts: Iterable[str]) -> Iterable[Topic]:
    """The topics on the broker that one declaration stands for."""
    everyone = declared.readers | {"audit"}
    if "{trust}" not in declared.name:
        writers = HUB_SERVICES if declared.owner == HUB else (declared.owner,)
        yield _topic(declared, declared.name, writers, everyone)
        return
    for trust in trusts:
        name = declared.named(trust)
        if declared.owner == "{trust}":
            yield _topic(declared, name, {trust}, everyone)
        else:
            yield _topic(declared, name, {declared.owner}, {trust, "audit"})


def _topic(declared: Declared, name: str, writers: Iterable[str], readers: Iterable[str]) -> Topic:
    return Topic(
        name=name,
        partitions=declared.partitions,
        retention_ms=declared.retention_ms,
        writers=frozenset(map(principal, writers)),
        readers=frozenset(map(principal, readers)),
    )


def principal(name: str) -> str:
    """The Kafka principal of a hub service or of a Trust."""
    return f"service.{name}" if name in HUB_SERVICES else f"trust.{name}"


def group_prefix(of: str) -> str:
    """What the consumer groups of a principal begin with: `service.auth` -> `auth.`, `trust.KCH` -> `KCH.`."""
    return of.split(".", 1)[1] + "."


def topics(trusts: Iterable[str]) -> list[Topic]:
    """Every topic of a deployment with these Trusts, by name; declarations of one name are one topic."""
    merged: dict[str, Topic] = {}
    codes = tuple(trusts)
    for declared in DECLARED:
        for topic in topics_of(declared, codes):
            known = merged.get(topic.name, topic)
            if known.partitions != topic.partitions or known.retention_ms != topic.retention_ms:
                raise ValueError(f"{topic.name} is declared in two ways")
            merged[topic.name] = Topic(
                topic.name,
                topic.partitions,
                topic.retention_ms,
                known.writers | topic.writers,
                known.readers | topic.readers,
            )
    return [merged[name] for name in sorted(merged)]


def messages() -> list[type[Message]]:
    """Every message of the catalogue, by its type's name."""
    found = [message for declared in DECLARED for message in declared.messages]
    return sorted(found, key=lambda message: message.type_name)
