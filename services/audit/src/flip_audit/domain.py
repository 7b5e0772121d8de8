"""When a checkpoint is due, and what it says. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flip_contracts.ledger import NOTHING, Checkpoint, root_of


@dataclass(frozen=True, slots=True)
class Pace:
    """A checkpoint is due after so many entries, or when one has waited for so long."""

    entries: int
    wait: timedelta


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the checkpoints end: the last one's number, the last position that it covers, its digest."""

    number: int = 0
    position: int = 0
    digest: str = NOTHING.hex()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries that a checkpoint covers, both ends included."""

    first: int
    last: int


def due(tail: Tail, head: int, waits_since: datetime | None, now: datetime, pace: Pace) -> Stretch | None:
    """What the next checkpoint covers, if one is due.

    `head` is the last position of the ledger, `waits_since` when the first entry behind the last checkpoint was heard.
    """
    waiting = head - tail.position
    overdue = waits_since is not None and now - waits_since >= pace.wait
    if waiting >= pace.entries or (waiting and overdue):
        return Stretch(tail.position + 1, tail.position + min(waiting, pace.entries))
    return None


def checkpoint(tail: Tail, stretch: Stretch, hashes: Sequence[bytes], now: datetime, key: str) -> Checkpoint:
    """The statement over `stretch`, whose entries have these hashes, behind `tail`; `key` is the id of who signs."""
    if len(hashes) != stretch.last - stretch.first + 1:
        raise ValueError(f"entries {stretch.first} to {stretch.last} have {len(hashes)} hashes: the ledger has a gap")
    return Checkpoint(
        key=key,
        number=tail.number + 1,
        first=stretch.first,
        last=stretch.last,
        head=hashes[-1].hex(),
        root=root_of(hashes).hex(),
        time=now,
        previous=tail.digest,
    )
