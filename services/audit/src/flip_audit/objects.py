"""The object store, written once: a name that is taken is never given other content."""

import asyncio
from datetime import timedelta

import httpx
from flip_chassis.object_store import object_store
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from flip_audit.settings import AuditSettings

_TIMEOUT_S = 30
_SIGNED_FOR = timedelta(minutes=5)


class StoreAway(Exception):
    """The object store gave no answer, or refused."""


class AnotherStands(Exception):
    """The name is taken by other content: somebody else has written it, or this ledger is not the one that did."""


class Objects:
    """One bucket."""

    def __init__(self, settings: AuditSettings) -> None:
        self._bucket = settings.s3_bucket
        self._client = object_store(settings)

    async def put_once(self, name: str, content: bytes) -> None:
        """Write an object unless it is there with this very content. Raises AnotherStands and StoreAway."""
        try:
            if not await self._put_new(name, content) and await asyncio.to_thread(self._get, name) != content:
                raise AnotherStands(name)
        except (S3Error, HTTPError, httpx.HTTPError) as error:
            raise StoreAway(f"{name}: {type(error).__name__}") from error

    async def _put_new(self, name: str, content: bytes) -> bool:
        """Whether the name was free. minio's own call can't say If-None-Match, so the address is signed for it."""
        url = await asyncio.to_thread(self._client.presigned_put_object, self._bucket, name, _SIGNED_FOR)
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = await client.put(url, content=content, headers={"If-None-Match": "*"})
        if answer.status_code == httpx.codes.PRECONDITION_FAILED:
            return False
        answer.raise_for_status()
        return True

    def _get(self, name: str) -> bytes:
        answer = self._client.get_object(self._bucket, name)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()
