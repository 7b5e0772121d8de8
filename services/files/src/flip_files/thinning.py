"""Thins the rounds of runs that ended long ago. It is said first and done then, so that nobody is offered what is gone;
whatever stops it, it is done again."""

from dataclasses import dataclass
from datetime import timedelta

from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from flip_files import domain, store
from flip_files.jobs import one_by_one
from flip_files.objects import Objects
from flip_files.store import Thinning

_LEASE = timedelta(minutes=15)
_PAUSE = timedelta(seconds=5)
_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Thinner:
    """Deletes what need not stay once a run has been over for as long as all of its rounds are kept."""

    stands: Backbone
    objects: Objects
    kept_for: timedelta

    async def run(self) -> None:
        """Thin for ever."""
        await one_by_one(self.thin_next, _LOOK_S)

    async def thin_next(self) -> bool:
        """Thin the rounds of the run that ended first, if any waits for it."""
        async with self.stands.pool.acquire() as db:
            thinning = await store.claim_thinning(db, self.kept_for, _LEASE)
        if thinning is None:
            return False
        try:
            await self._thin(thinning)
        except (S3Error, HTTPError, OSError) as error:
            log.warning("rounds not deleted; they wait", run_id=str(thinning.run_id), reason=type(error).__name__)
            async with self.stands.pool.acquire() as db:
                await store.thin_again(db, thinning, _PAUSE)
        return True

    async def _thin(self, thinning: Thinning) -> None:
        run_id = thinning.run_id
        async with self.stands.working() as work, work.on(domain.RESULTS, run_id) as results:
            said = domain.thin((await store.course(work.db, run_id)).rounds, run_id)
            if said is not None:
                results.record(said)
        async with self.stands.pool.acquire() as db:
            gone = await store.deleted_objects(db, run_id)
        for name in gone:
            await self.objects.remove(name)
        async with self.stands.pool.acquire() as db:
            await store.thinned(db, thinning)
