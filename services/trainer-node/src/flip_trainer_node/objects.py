"""The object store, for whole files. Nothing is held in memory; calls run in threads."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flip_contracts.base import Sha256
from minio import Minio

from flip_trainer_node.settings import ControllerSettings


class ObjectDiffers(Exception):
    """An object is not what its digest says."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was stored."""

    digest: Sha256
    size_bytes: int


class Objects:
    """One bucket."""

    def __init__(self, settings: ControllerSettings) -> None:
        endpoint = urlsplit(settings.s3_endpoint if "://" in settings.s3_endpoint else f"http://{settings.s3_endpoint}")
        self._bucket = settings.s3_bucket
        self._client = Minio(
            endpoint.netloc,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=endpoint.scheme == "https",
        )

    async def put(self, name: str, file: Path) -> Stored:
        """Store a file; the same file under the same name changes nothing. Raises S3Error or urllib3's errors."""
        stored = Stored(await digest_of(file), file.stat().st_size)
        await asyncio.to_thread(self._client.fput_object, self._bucket, name, str(file))
        return stored

    async def get(self, name: str, digest: Sha256, file: Path) -> None:
        """Fetch an object to `file`. Raises ObjectDiffers, S3Error or urllib3's errors."""
        await asyncio.to_thread(self._client.fget_object, self._bucket, name, str(file))
        if await digest_of(file) != digest:
            file.unlink()
            raise ObjectDiffers(name)


async def digest_of(file: Path) -> Sha256:
    """SHA-256 of a file."""
    return await asyncio.to_thread(_digest_of, file)


def _digest_of(file: Path) -> Sha256:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
