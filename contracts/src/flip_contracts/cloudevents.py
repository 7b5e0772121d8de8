"""CloudEvents 1.0 in Kafka's binary mode: attributes in `ce_` headers, the body as JSON.

Source: CloudEvents specification 1.0.2, Kafka protocol binding 1.0.2; W3C Trace Context for `traceparent`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, NotRequired
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes the library's own only from Python 3.12 on

Header = tuple[str, bytes]


class Malformed(ValueError):
    """A record that is no CloudEvent of ours; the text says which header is missing or wrong."""


class Envelope(NamedTuple):
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


class _Attributes(TypedDict):
    ce_id: UUID
    ce_type: str
    ce_source: str
    ce_subject: str
    ce_sequence: int
    ce_time: datetime
    ce_actor: str
    ce_correlationid: UUID
    ce_causationid: NotRequired[UUID]
    traceparent: NotRequired[str]


_ATTRIBUTES = TypeAdapter(_Attributes)


def read_envelope(topic: str, headers: Iterable[Header]) -> Envelope:
    """The envelope of a record of `topic`. Raises Malformed, naming the header."""
    try:
        found = _ATTRIBUTES.validate_python({name: value.decode() for name, value in headers})
    except UnicodeDecodeError as error:
        raise Malformed("a header is not UTF-8") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = "is missing" if first["type"] == "missing" else "can't be read"
        raise Malformed(f"the header {first['loc'][0]} {problem}") from error
    return Envelope(
        id=found["ce_id"],
        type=found["ce_type"],
        source=found["ce_source"],
        topic=topic,
        key=found["ce_subject"],
        stream_version=found["ce_sequence"],
        time=found["ce_time"],
        actor=found["ce_actor"],
        correlation_id=found["ce_correlationid"],
        causation_id=found.get("ce_causationid"),
        traceparent=found.get("traceparent"),
    )
