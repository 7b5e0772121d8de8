"""What operators do to a service's record keeping, said by the service itself: at the hub as events, at a Trust as
reports. `process` is the CloudEvents source of the process concerned, such as `flip/hub/scheduler`."""

from typing import Annotated, Literal

from pydantic import BaseModel

from flip_contracts.base import Event, Open, Report, Sha256
from flip_contracts.topics import OPERATION, OPERATION_REPORTS


class Retried(BaseModel):
    """Parked records were given another try: one record, a key's, or all of a type."""

    process: str
    scope: Annotated[Literal["record", "key", "type"], Open("record")]
    subject: str
    keys: int


class Discarded(BaseModel):
    """A parked record was taken out of the way; the service keeps a copy. `record` is topic/partition/offset."""

    process: str
    record: str
    record_type: str | None
    digest: Sha256
    because: str


class Rebuilt(BaseModel):
    """Projections were rebuilt from what was said and heard. `differing` are the tables that stood otherwise."""

    process: str
    events: int
    differing: frozenset[str]
    swapped: bool


class Refilled(BaseModel):
    """The whole event log is on its way to the broker again, with the same ids."""

    process: str
    events: int


class ParkedRetried(Retried, Event, topic=OPERATION, version=1):
    """At the hub."""


class ParkedDiscarded(Discarded, Event, topic=OPERATION, version=1):
    """At the hub."""


class ProjectionsRebuilt(Rebuilt, Event, topic=OPERATION, version=1):
    """At the hub."""


class BrokerRefilled(Refilled, Event, topic=OPERATION, version=1):
    """At the hub."""


class TrustRetriedParked(Retried, Report, topic=OPERATION_REPORTS, version=1):
    """At a Trust."""


class TrustDiscardedParked(Discarded, Report, topic=OPERATION_REPORTS, version=1):
    """At a Trust."""


class TrustRebuiltProjections(Rebuilt, Report, topic=OPERATION_REPORTS, version=1):
    """At a Trust."""


class TrustRefilledBroker(Refilled, Report, topic=OPERATION_REPORTS, version=1):
    """At a Trust."""
