"""What every service is told by its environment, each name with the prefix `FLIP_`."""

from pathlib import Path
from typing import ClassVar

from flip_contracts.base import TrustCode
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The settings that all services share. A service adds its own in a subclass and names itself in `service`."""

    model_config = SettingsConfigDict(env_prefix="FLIP_", frozen=True)

    service: ClassVar[str]

    host: str = "127.0.0.1"
    port: int
    postgres: SecretStr
    """DSN of the service's own role: it may append to the event log, never change it."""
    postgres_owner: SecretStr
    """DSN of the role that owns the database and runs the migrations."""
    kafka: str
    kafka_certificate: Path
    """PEM file with the private key, the certificate and the chain of this principal."""
    kafka_ca: Path
    kafka_group: str = ""
    """The consumer group, where it is not the principal's usual one."""
    jwks_url: str = ""
    """Where `auth` publishes its signing keys; only services with users' routes need it."""
    operator_token_file: Path | None = None
    """At a Trust: the file with the token of the Trust's operator. Without it nobody may operate the process."""
    trust: TrustCode | None = None
    """The Trust that this process belongs to; none at the hub."""
    trusts: frozenset[TrustCode] = frozenset()
    """At the hub: the Trusts of the deployment."""

    @property
    def source(self) -> str:
        """The CloudEvents source of what this process says."""
        return f"flip/{self.trust}/{self.service}" if self.trust else f"flip/hub/{self.service}"

    @property
    def group(self) -> str:
        """The consumer group; its first part is what the principal's ACL allows."""
        if self.kafka_group:
            return self.kafka_group
        return f"{self.trust}.{self.service}" if self.trust else f"{self.service}.inbox"
