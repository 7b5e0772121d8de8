# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
"""Records on their way to Kafka: those of one partition travel together, in their order."""

from collections.abc import Awaitable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from aiokafka.partitioner import murmur2


class Outgoing(NamedTuple):
    """A record to be sent."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class Batch(Protocol):
    """Records of one partition. `append` answers None where the batch is full."""

    def append(
        self, *, timestamp: int | None, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> object | None: ...


class Producer(Protocol):
    """What of aiokafka's producer the relay uses."""

    async def partitions_for(self, topic: str) -> set[int]: ...
    def create_batch(self) -> Batch: ...
    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> Awaitable[object]: ...


async def send(producer: Producer, records: Iterable[Outgoing]) -> Sequence[Awaitable[object]]:
    """Hand records over in as few batches as hold them; what to wait for until all are acknowledged.

    Sent one by one, the first record would travel alone, and all others wait for its acknowledgement.
    """
    counts: dict[str, int] = {}
    filling: dict[tuple[str, int], Batch] = {}
    sent: list[Awaitable[object]] = []
    for topic, key, value, headers in records:
        if topic not in counts:
            counts[topic] = len(await producer.partitions_for(topic))
        place = topic, _hash(key) % counts[topic]
        batch = filling.get(place)
        if batch is None or batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            if batch is not None:
                sent.append(await producer.send_batch(batch, topic, partition=place[1]))
            filling[place] = batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
    return [*sent, *[await producer.send_batch(batch, topic, partition=p) for (topic, p), batch in filling.items()]]


@lru_cache(maxsize=10_000)
def _hash(key: bytes) -> int:
    """What Kafka's own clients choose the partition of a key by."""
    return murmur2(key) & 0x7FFFFFFF
