"""Scan results and files, one at a time; a scanner or store that is down means waiting, never clean."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_contracts.apps import object_of_file
from flip_contracts.files import ModelFileAccepted, ModelFileRefused, ModelFileUploaded
from flip_contracts.trainer_node import ResultsCollected
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from flip_files import domain, store
from flip_files.clamd import Clamd, NotScanned
from flip_files.findings import Inspection
from flip_files.inspection import inspect_apart
from flip_files.jobs import one_by_one
from flip_files.objects import Digest, ObjectMissing, Objects
from flip_files.store import Scannable

_LEASE = timedelta(minutes=15)
_PAUSE = timedelta(seconds=5)
_LOOK_S = 0.5
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Scanner:
    """Takes what waits in the table of scans to a verdict."""

    stands: Backbone
    objects: Objects
    clamd: Clamd

    async def run(self) -> None:
        """Scan for ever."""
        await one_by_one(self.scan_next, _LOOK_S)

    async def scan_next(self) -> bool:
        """Scan what waits longest, if anything does."""
        async with self.stands.pool.acquire() as db:
            asked = await store.claim_scan(db, _LEASE)
        if asked is None:
            return False
        try:
            await self._take_to_verdict(asked)
        except (NotScanned, S3Error, HTTPError, OSError) as error:
            log.warning("not scanned; it waits", subject=asked.key, reason=type(error).__name__)
            async with self.stands.pool.acquire() as db:
                await store.scan_again(db, asked, _PAUSE)
        return True

    async def _take_to_verdict(self, asked: Scannable) -> None:
        match asked:
            case ResultsCollected():
                await self._judge_results(asked)
            case ModelFileUploaded():
                await self._judge_file(asked)

    async def _scan(self, chunks: AsyncIterator[bytes], digest: Digest) -> domain.Scan:
        engine, signatures = await self.clamd.version()
        found = await self.clamd.scan(chunks)
        return domain.Scan(engine, signatures, found, digest.hex())

    # --- results --------------------------------------------------------------------------------------------------

    async def _judge_results(self, collected: ResultsCollected) -> None:
        digest = Digest()
        scan = await self._scan(self.objects.stream(collected.object, digest), digest)
        async with self.stands.working() as work, work.on(domain.RESULTS, collected.run_id) as result:
            verdict = domain.judge(result.state, collected, scan)
            if verdict is not None:
                result.record(verdict)
            await store.scan_done(work.db, collected)

    # --- files of models ------------------------------------------------------------------------------------------

    async def _judge_file(self, uploaded: ModelFileUploaded) -> None:
        """What was scanned is what is kept: the very copy goes to where runs take it from. The upload goes last."""
        async with self.stands.pool.acquire() as db:
            model = await store.model(db, uploaded.model_id)
        if model is not None:
            with tempfile.TemporaryDirectory(prefix="flip-scan-") as folder:
                copy = Path(folder) / f"file{Path(uploaded.path).suffix}"
                verdict = await self._verdict(model, uploaded, copy)
                if isinstance(verdict, ModelFileAccepted):
                    await self.objects.put(object_of_file(uploaded.model_id, uploaded.digest), copy)
            async with self.stands.working() as work, work.on(domain.MODEL_FILES, uploaded.model_id) as files:
                if domain.waits_for(files.state, uploaded):
                    files.record(verdict)
        await self.objects.remove(uploaded.object)
        async with self.stands.pool.acquire() as db:
            await store.scan_done(db, uploaded)

    async def _verdict(
        self, model: domain.Model, uploaded: ModelFileUploaded, copy: Path
    ) -> ModelFileAccepted | ModelFileRefused:
        try:
            await self.objects.fetch(uploaded.object, copy)
        except ObjectMissing:
            return domain.judge_file(uploaded, None, Inspection())
        digest = Digest()
        scan = await self._scan(_chunks(copy, digest), digest)
        return domain.judge_file(uploaded, scan, await inspect_apart(model.framework, uploaded.path, copy))


async def _chunks(file: Path, digest: Digest) -> AsyncIterator[bytes]:
    """A file in chunks, each of which `digest` sees too."""
    with file.open("rb") as stream:
        while chunk := await asyncio.to_thread(stream.read, _CHUNK):
            digest.update(chunk)
            yield chunk
