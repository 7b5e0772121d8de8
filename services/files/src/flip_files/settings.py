"""The settings of the files service."""

from flip_chassis.settings import Settings
from pydantic import SecretStr


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
