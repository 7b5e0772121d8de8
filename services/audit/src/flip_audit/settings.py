"""The settings of the audit service."""

from pathlib import Path
from typing import Annotated

from flip_chassis.settings import Settings
from flip_contracts.ledger import MOST_LEAVES
from pydantic import Field, SecretStr


class AuditSettings(Settings):
    """Where checkpoints are kept, who signs them and how often, beside what every service has."""

    service = "audit"

    s3_endpoint: str
    """Host and port, or a URL with its scheme. Best a store that this service's operators can't change."""
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str
    signing_key: Path
    """PEM file with the Ed25519 key that signs checkpoints and exports."""
    checkpoint_entries: Annotated[int, Field(ge=1, le=MOST_LEAVES)] = 1024
    """A checkpoint is signed after so many entries."""
    checkpoint_s: Annotated[float, Field(gt=0)] = 60
    """And when an entry has waited for so many seconds."""
