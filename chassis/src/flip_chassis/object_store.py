# pyright: reportUnknownMemberType=false
"""The way to the object store: any S3 server."""

from typing import Protocol
from urllib.parse import urlsplit

from minio import Minio
from pydantic import SecretStr


class StoreSettings(Protocol):
    """What a service is told of its object store. `s3_endpoint` is host and port, or a URL with its scheme."""

    s3_endpoint: str
    s3_access_key: SecretStr
    s3_secret_key: SecretStr


def object_store(settings: StoreSettings) -> Minio:
    """A client of the store; its calls block, so they belong in threads."""
    endpoint = urlsplit(settings.s3_endpoint if "://" in settings.s3_endpoint else f"http://{settings.s3_endpoint}")
    return Minio(
        endpoint.netloc,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=endpoint.scheme == "https",
    )
