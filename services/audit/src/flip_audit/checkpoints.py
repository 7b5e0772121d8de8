"""Checkpoints: signed in the database, then put into the object store, then said.

Each step can be done again after a crash at any point. The statement is kept with its signature before anybody sees it,
so what goes to the store is always the same bytes under the same name, and there is one checkpoint for a stretch.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flip_chassis.database import UNREACHABLE, Connection
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_contracts import ledger
from flip_contracts.audit import CheckpointSigned
from flip_contracts.ledger import Checkpoint
from prometheus_client import Gauge

from flip_audit import domain, store
from flip_audit.domain import Pace
from flip_audit.keys import SigningKey, as_pem
from flip_audit.objects import AnotherStands, Objects, StoreAway

CONFLICT = Gauge("flip_checkpoint_conflict", "1 where the object store holds another checkpoint than the ledger has")
UNSIGNED = Gauge("flip_ledger_unsigned_entries", "Entries behind the last checkpoint")
_LOOK_S = 1.0
_AWAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Signs the ledger as it grows."""

    stands: Backbone
    objects: Objects
    key: SigningKey
    pace: Pace

    async def introduce_key(self) -> None:
        """Keep the public half of the key, for exports; comes before anything is signed."""
        async with self.stands.pool.acquire() as db:
            await store.keep_key(db, self.key.id, self.key.public)

    async def run(self) -> None:
        """Sign what is due and store what is signed, for ever; whatever is away is waited for."""
        while True:
            try:
                await self.sign(self.pace)
                await self.store()
            except (*UNREACHABLE, StoreAway) as error:
                log.warning("checkpoints wait", reason=str(error) or type(error).__name__)
                await asyncio.sleep(_AWAY_S)
            await asyncio.sleep(_LOOK_S)

    async def sign_everything(self) -> Checkpoint:
        """Sign all that is entered by now; the last checkpoint. Raises ValueError while nothing is entered."""
        await self.sign(Pace(self.pace.entries, timedelta(0)))
        async with self.stands.pool.acquire() as db:
            last = await store.last_checkpoint(db)
        if last is None:
            raise ValueError("the ledger is empty")
        return last

    async def sign(self, pace: Pace) -> None:
        """Sign what is due at this pace."""
        while True:
            async with self.stands.pool.acquire() as db, db.transaction():
                if not await self._sign_next(db, pace):
                    return

    async def _sign_next(self, db: Connection, pace: Pace) -> bool:
        tail = await store.lock_checkpoints(db)
        head, waits_since = await store.waiting(db, tail)
        UNSIGNED.set(head - tail.position)
        now = datetime.now(UTC)
        stretch = domain.due(tail, head, waits_since, now, pace)
        if stretch is None:
            return False
        checkpoint = domain.checkpoint(tail, stretch, await store.hashes(db, stretch), now, self.key.id)
        await store.keep_checkpoint(db, checkpoint, *self.key.sign(checkpoint))
        return True

    async def store(self) -> None:
        """Bring every signed checkpoint into the object store, in order, and say so. Raises StoreAway.

        Where the store has other content under a checkpoint's name, it stays, and none behind that one is stored.
        """
        while signed := await self._first_unstored():
            statement, signature = signed
            checkpoint = Checkpoint.decode(statement)
            name = f"checkpoints/{checkpoint.number:012d}.json"
            try:
                await self.objects.put_once(f"keys/{self.key.id}.pem", as_pem(self.key.public))
                await self.objects.put_once(name, ledger.signed(statement, signature))
            except AnotherStands as conflict:
                CONFLICT.set(1)
                log.error("the object store has OTHER content under this name", object=str(conflict))
                return
            CONFLICT.set(0)
            await self._say(checkpoint, ledger.digest_of(statement), name)

    async def _first_unstored(self) -> tuple[bytes, bytes] | None:
        async with self.stands.pool.acquire() as db:
            return await store.first_unstored(db)

    async def _say(self, checkpoint: Checkpoint, digest: str, name: str) -> None:
        async with self.stands.working() as work, work.db.transaction():
            await store.lock_checkpoints(work.db)
            if await store.is_stored(work.db, checkpoint.number):
                return
            await work.say(
                CheckpointSigned(
                    number=checkpoint.number,
                    first=checkpoint.first,
                    last=checkpoint.last,
                    head=checkpoint.head,
                    root=checkpoint.root,
                    digest=digest,
                    key_id=checkpoint.key,
                    object=name,
                )
            )
