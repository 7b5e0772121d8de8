"""Scan what was collected, one bundle at a time; a scanner or store that is down means waiting, never clean."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from flip_chassis.database import UNREACHABLE
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_contracts.trainer_node import ResultsCollected
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from flip_files import domain, store
from flip_files.clamd import Clamd, NotScanned
from flip_files.objects import Digest, Objects

_LEASE = timedelta(minutes=15)
_PAUSE = timedelta(seconds=5)
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Scanner:
    """Takes bundles from the table of scans to a verdict."""

    stands: Backbone
    objects: Objects
    clamd: Clamd

    async def run(self) -> None:
        """Scan for ever."""
        while True:
            try:
                busy = await self.scan_next()
            except UNREACHABLE as error:
                log.warning("Postgres is away; scans wait", reason=type(error).__name__)
                busy = False
            if not busy:
                await asyncio.sleep(_LOOK_S)

    async def scan_next(self) -> bool:
        """Scan one bundle, if one waits."""
        async with self.stands.pool.acquire() as db:
            collected = await store.claim_scan(db, _LEASE)
        if collected is None:
            return False
        try:
            scan = await self._scan(collected.object)
        except (NotScanned, S3Error, HTTPError, OSError) as error:
            log.warning("not scanned; it waits", run_id=str(collected.run_id), reason=type(error).__name__)
            async with self.stands.pool.acquire() as db:
                await store.scan_again(db, collected.run_id, _PAUSE)
        else:
            await self._judge(collected, scan)
        return True

    async def _scan(self, name: str) -> domain.Scan:
        engine, signatures = await self.clamd.version()
        digest = Digest()
        found = await self.clamd.scan(self.objects.stream(name, digest))
        return domain.Scan(engine, signatures, found, digest.hex())

    async def _judge(self, collected: ResultsCollected, scan: domain.Scan) -> None:
        async with self.stands.working() as work, work.on(domain.RESULTS, collected.run_id) as result:
            verdict = domain.judge(result.state, collected, scan)
            if verdict is not None:
                result.record(verdict)
            await store.scan_done(work.db, collected.run_id)
