"""Exports of the ledger as it stands in the database."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flip_chassis.database import Pool
from flip_contracts.base import UserId
from flip_contracts.ledger import Checkpoint, Entry, PublicKeys, Terms, Tree

from flip_audit import store
from flip_audit.bundle import Asked, bundle
from flip_audit.checkpoints import Checkpoints
from flip_audit.domain import Stretch

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """The ledger as a source of exports. A connection is held for a page at a time: what is exported never changes."""

    pool: Pool

    async def entries(self, terms: Terms, after: int, until: int) -> Sequence[Entry]:
        """A page of the entries that fit, behind position `after`."""
        async with self.pool.acquire() as db:
            return await store.entries(db, terms, after, until, _PAGE)

    async def checkpoints(self, after: int, until: int) -> Sequence[tuple[bytes, bytes]]:
        """A page of statements and signatures, behind number `after`."""
        async with self.pool.acquire() as db:
            return await store.checkpoints(db, after, until, _PAGE)

    async def tree_over(self, position: int) -> tuple[Checkpoint, Tree]:
        """The checkpoint that covers a position, and its tree."""
        async with self.pool.acquire() as db:
            checkpoint = await store.checkpoint_over(db, position)
            return checkpoint, Tree(await store.hashes(db, Stretch(checkpoint.first, checkpoint.last)))

    async def keys(self) -> PublicKeys:
        """Every key that ever signed."""
        async with self.pool.acquire() as db:
            return await store.keys(db)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes exports; what is not signed yet is signed first."""

    checkpoints: Checkpoints

    async def export(self, terms: Terms, by: UserId) -> AsyncIterator[bytes]:
        """All that fits and is entered by now; the bytes come as they are made."""
        until = await self.checkpoints.sign_everything()
        asked = Asked(terms, until, by, datetime.now(UTC))
        return bundle(Stored(self.checkpoints.stands.pool), self.checkpoints.key, asked)
