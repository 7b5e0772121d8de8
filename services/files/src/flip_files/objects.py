"""The object store: any S3 server, read as a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from flip_chassis.object_store import object_store
from flip_contracts.base import Sha256
from minio.error import S3Error

from flip_files.settings import FilesSettings

_CHUNK = 1 << 20
_PART = 16 << 20


class ObjectMissing(Exception):
    """There is no such object."""


class TooLarge(Exception):
    """More came than may come."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored."""

    digest: Sha256
    size_bytes: int


class Objects:
    """One bucket."""

    def __init__(self, settings: FilesSettings) -> None:
        self._bucket = settings.s3_bucket
        self._client = object_store(settings)

    def read(self, name: str) -> Iterator[bytes]:
        """The object in chunks of 1 MiB; blocks, so it belongs in a thread. Raises S3Error."""
        answer = self._client.get_object(self._bucket, name)
        try:
            yield from answer.stream(_CHUNK)
        finally:
            answer.close()
            answer.release_conn()

    async def stream(self, name: str, digest: "Digest") -> AsyncIterator[bytes]:
        """The object in chunks, each of which `digest` sees too."""
        chunks = self.read(name)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            digest.update(chunk)
            yield chunk

    async def fetch(self, name: str, file: Path) -> None:
        """Fetch an object to `file`. Raises ObjectMissing and S3Error."""
        try:
            await asyncio.to_thread(self._client.fget_object, self._bucket, name, str(file))
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            raise ObjectMissing(name) from error

    async def put(self, name: str, file: Path) -> None:
        """Store a file; the same file under the same name changes nothing. Raises S3Error."""
        await asyncio.to_thread(self._client.fput_object, self._bucket, name, str(file))

    async def take(self, name: str, chunks: AsyncIterator[bytes], most_bytes: int) -> Stored:
        """Store what comes in chunks, holding 16 MiB of it in memory. Raises TooLarge, S3Error, or as `chunks` does."""
        body = _Body(chunks, most_bytes, asyncio.get_running_loop())
        await asyncio.to_thread(
            self._client.put_object, self._bucket, name, cast("BinaryIO", body), length=-1, part_size=_PART
        )
        return Stored(body.digest.hex(), body.size)

    async def remove(self, name: str) -> None:
        """Delete an object; one that is not there is gone. Raises S3Error."""
        await asyncio.to_thread(self._client.remove_object, self._bucket, name)


class _Body:
    """Chunks of the event loop as a file that a thread reads."""

    def __init__(self, chunks: AsyncIterator[bytes], most_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        self.digest = Digest()
        self.size = 0
        self._chunks = chunks
        self._most_bytes = most_bytes
        self._loop = loop
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end. Raises TooLarge, or as the chunks do."""
        parts, got = [self._rest], len(self._rest)
        while got < size and (chunk := self._next()) is not None:
            parts.append(chunk)
            got += len(chunk)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def _next(self) -> bytes | None:
        chunk = asyncio.run_coroutine_threadsafe(self._advance(), self._loop).result()
        if chunk is not None:
            self.size += len(chunk)
            if self.size > self._most_bytes:
                raise TooLarge
            self.digest.update(chunk)
        return chunk

    async def _advance(self) -> bytes | None:
        return await anext(self._chunks, None)


class Digest:
    """SHA-256 of what passed by."""

    def __init__(self) -> None:
        self._hash = sha256()

    def update(self, chunk: bytes) -> None:
        """See one more chunk."""
        self._hash.update(chunk)

    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()
