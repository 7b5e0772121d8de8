"""The object store: any S3 server, read as a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256

from flip_chassis.object_store import object_store

from flip_files.settings import FilesSettings

_CHUNK = 1 << 20


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
