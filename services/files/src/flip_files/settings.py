"""The settings of the files service."""

from datetime import timedelta
from typing import Annotated

from flip_chassis.settings import Settings
from pydantic import Field, PositiveInt, SecretStr


class FilesSettings(Settings):
    """Where objects are kept and who scans them, beside what every service has."""

    service = "files"

    s3_endpoint: str
    """Host and port, or a URL with its scheme."""
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str
    clamd_host: str
    clamd_port: int
    most_file_bytes: PositiveInt = 5 << 30
    """The largest file that a model may have."""
    most_files: PositiveInt = 200
    """How many files a model may have."""
    uploads_at_once: PositiveInt = 4
    """Uploads that this process takes at the same time; each holds a connection to Postgres while it lasts."""
    rounds_kept_for: Annotated[timedelta, Field(ge=timedelta())] = timedelta(days=30)
    """For so long after its end a run keeps the weights after all of its rounds; then the last and the best stay."""
