"""CloudEvents 1.0 in Kafka's binary mode: attributes in `ce_` headers, the body as JSON.

Source: CloudEvents specification 1.0.2, Kafka protocol binding 1.0.2; W3C Trace Context for `traceparent`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

Header = tuple[str, bytes]
T = TypeVar("T")


class Malformed(ValueError):
    """A record that is no CloudEvent of ours; the text says which header is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a message beside its body.

    `source` is the service that said it (`flip/<service>` or `flip/<trust>/<service>`), `stream_version` its place
    among the messages of its aggregate by that source, counted from 1.
    """

    id: UUID
    type: str
    source: str
    topic: str
    key: str
    stream_version: int
    time: datetime
    actor: str
    correlation_id: UUID
    causation_id: UUID | None
    traceparent: str | None

    @property
    def stream(self) -> str:
        """The name of the aggregate's stream: its topic and its id."""
        return f"{self.topic}/{self.key}"

    def headers(self) -> list[Header]:
        """The Kafka headers of the record."""
        attributes = {
            "ce_specversion": "1.0",
            "ce_id": str(self.id),
            "ce_type": self.type,
            "ce_source": self.source,
            "ce_subject": self.key,
            "ce_time": self.time.isoformat(),
            "ce_sequence": str(self.stream_version),
            "ce_actor": self.actor,
            "ce_correlationid": str(self.correlation_id),
            "ce_causationid": str(self.causation_id) if self.causation_id else None,
            "traceparent": self.traceparent,
            "content-type": "application/json",
        }
        return [(name, value.encode()) for name, value in attributes.items() if value is not None]


def read_envelope(topic: str, headers: Iterable[Header]) -> Envelope:
    """The envelope of a record of `topic`. Raises Malformed, naming the header."""
    try:
        found = {name: value.decode() for name, value in headers}
    except UnicodeDecodeError as error:
        raise Malformed("a header is not UTF-8") from error

    def read(name: str, parse: Callable[[str], T]) -> T:
        if name not in found:
            raise Malformed(f"the header {name} is missing")
        try:
            return parse(found[name])
        except ValueError as error:
            raise Malformed(f"the header {name} can't be read") from error

    return Envelope(
        id=read("ce_id", UUID),
        type=read("ce_type", str),
        source=read("ce_source", str),
        topic=topic,
        key=read("ce_subject", str),
        stream_version=read("ce_sequence", int),
        time=read("ce_time", datetime.fromisoformat),
        actor=read("ce_actor", str),
        correlation_id=read("ce_correlationid", UUID),
        causation_id=read("ce_causationid", UUID) if "ce_causationid" in found else None,
        traceparent=found.get("traceparent"),
    )
