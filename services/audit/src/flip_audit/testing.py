"""An invented ledger, for tests and benchmarks: as long as wanted, held as its hashes alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flip_contracts import ledger
from flip_contracts.ledger import NOTHING, Checkpoint, Entry, Head, PublicKey, PublicKeys, Terms, Tree

from flip_audit import domain
from flip_audit.bundle import Asked, bundle
from flip_audit.domain import Stretch, Tail
from flip_audit.keys import SigningKey

ACTORS = ("user:ada", "user:grace", "service:hub/scheduler")
_BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
_PAGE = 1000


def invented_key(seed: int = 0) -> SigningKey:
    """The same key for the same seed."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


@dataclass
class Invented:
    """A ledger of `length` entries with a checkpoint after every `pace` of them."""

    length: int
    pace: int = 1024
    key: SigningKey = field(default_factory=invented_key)

    def __post_init__(self) -> None:
        self._hashes = [NOTHING]
        self.signed: list[tuple[Checkpoint, bytes, bytes]] = []
        tail = Tail()
        for first in range(1, self.length + 1, self.pace):
            stretch = Stretch(first, min(first + self.pace - 1, self.length))
            for position in range(first, stretch.last + 1):
                self._hashes.append(self.entry(position).hash)
            at = _BEGAN + timedelta(seconds=stretch.last)
            checkpoint = domain.checkpoint(tail, stretch, self._hashes[first:], at, self.key.id)
            statement, signature = self.key.sign(checkpoint)
            self.signed.append((checkpoint, statement, signature))
            tail = Tail(checkpoint.number, checkpoint.last, ledger.digest_of(statement))

    def entry(self, position: int) -> Entry:
        """An entry, made again from its place."""
        head = Head(position - 1, self._hashes[position - 1])
        return next(ledger.chained(head, [_facts(position)]))

    async def entries(self, terms: Terms, after: int, until: int) -> Sequence[Entry]:
        """A page of the entries that fit `terms.actor`."""
        found: list[Entry] = []
        for position in range(after + 1, until + 1):
            if terms.actor in {None, _actor(position)}:
                found.append(self.entry(position))
            if len(found) == _PAGE:
                break
        return found

    async def checkpoints(self, after: int, until: int) -> Sequence[tuple[bytes, bytes]]:
        """A page of statements and signatures."""
        return [(statement, signature) for _, statement, signature in self.signed[after : min(until, after + _PAGE)]]

    async def tree_over(self, position: int) -> tuple[Checkpoint, Tree]:
        """The checkpoint over a position, and its tree."""
        checkpoint = self.signed[(position - 1) // self.pace][0]
        return checkpoint, Tree(self._hashes[checkpoint.first : checkpoint.last + 1])

    async def keys(self) -> PublicKeys:
        """The ledger's one key."""
        return PublicKeys(keys=(PublicKey(id=self.key.id, public_key=self.key.public.hex()),))

    async def export(self, file: Path, terms: Terms | None = None) -> Path:
        """Write an export of the entries that fit, as the service would."""
        asked = Asked(terms or Terms(), self.signed[-1][0], UUID(int=7), _BEGAN)
        with file.open("wb") as written:
            async for part in bundle(self, self.key, asked):
                written.write(part)
        return file


def _actor(position: int) -> str:
    return ACTORS[position % len(ACTORS)]


def _facts(position: int) -> bytes:
    at = (_BEGAN + timedelta(seconds=position)).isoformat()
    project_id = str(UUID(int=position % 97))
    facts = {
        "actor": _actor(position),
        "body": {"project_id": project_id, "reason": "agreed", "trust": "KCH"},
        "causation_id": None,
        "correlation_id": str(UUID(int=position * 31)),
        "event_id": str(UUID(int=position)),
        "heard_at": at,
        "key": project_id,
        "project_id": project_id,
        "source": "flip/hub/projects",
        "stream_version": position,
        "time": at,
        "topic": "flip.projects.project",
        "type": "flip.projects.ProjectApproved.v1",
    }
    return orjson.dumps(facts)
