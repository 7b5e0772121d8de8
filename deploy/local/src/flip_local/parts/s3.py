"""The object store: versitygw, an S3 server over a folder, with two buckets."""

from __future__ import annotations

from flip_local.credentials import Credentials
from flip_local.layout import HUB, Layout
from flip_local.part import HttpProbe, Part

MODULE = "github.com/versity/versitygw/cmd/versitygw"
VERSION = "v1.8.0"
BUCKET = "flip"
"""What runs leave behind. A bucket is a folder of the posix backend, made before the server starts."""
LEDGER_BUCKET = "flip-ledger"
"""The ledger's signed checkpoints."""

REGION = "us-east-1"


def parts(layout: Layout) -> list[Part]:
    """The S3 server; its buckets are there from the start."""
    access_key, secret_key = Credentials(layout).s3
    port = layout.port("s3")
    objects = layout.folder(HUB, "s3", "objects")
    return [
        Part(
            name="s3",
            command=(str(layout.downloads / "versitygw"), "--quiet", "--health", "/health", "posix", str(objects)),
            ready=HttpProbe(f"http://127.0.0.1:{port}/health"),
            ports=(port,),
            environment={
                "ROOT_ACCESS_KEY": access_key,
                "ROOT_SECRET_KEY": secret_key,
                "VGW_REGION": REGION,
                "VGW_PORT": f"127.0.0.1:{port}",
                # Browsers upload and download by presigned addresses from the gateway's pages.
                "VGW_CORS_ALLOW_ORIGIN": layout.gateway_url,
            },
            folders=(objects / BUCKET, objects / LEDGER_BUCKET),
        )
    ]
