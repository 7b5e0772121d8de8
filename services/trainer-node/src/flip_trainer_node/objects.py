"""The object store, for whole files. Nothing is held in memory; calls run in threads.

Every call raises HubDiskFailed where the file at the hub is the trouble.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from flip_chassis.object_store import object_store
from flip_contracts.base import Sha256
from minio.error import S3Error

from flip_trainer_node.hub_disk import hub_disk
from flip_trainer_node.settings import ControllerSettings


class ObjectMissing(Exception):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was stored."""

    digest: Sha256
    size_bytes: int


class Objects:
    """One bucket."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._bucket = settings.s3_bucket
        self._client = object_store(settings)

    async def put(self, name: str, file: Path) -> Stored:
        """Store a file; the same file under the same name changes nothing. Raises S3Error or urllib3's errors."""
        return await asyncio.to_thread(self._put, name, file)

    async def get_exactly(self, name: str, digest: Sha256, file: Path) -> None:
        """Fetch an object to `file`. Raises as `get`; one with another digest than this counts as missing."""
        await self.get(name, file)
        if await asyncio.to_thread(_digest_of, file) != digest:
            raise ObjectMissing(name)

    async def get(self, name: str, file: Path) -> None:
        """Fetch an object to `file`. Raises ObjectMissing, S3Error or urllib3's errors."""
        try:
            await asyncio.to_thread(self._get, name, file)
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            raise ObjectMissing(name) from error

    @hub_disk()
    def _get(self, name: str, file: Path) -> None:
        self._client.fget_object(self._bucket, name, str(file))

    @hub_disk()
    def _put(self, name: str, file: Path) -> Stored:
        stored = Stored(_digest_of(file), file.stat().st_size)
        self._client.fput_object(self._bucket, name, str(file))
        return stored


def _digest_of(file: Path) -> Sha256:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
