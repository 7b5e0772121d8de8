"""The settings of the auth service."""

from pathlib import Path
from typing import Literal, Self

from flip_chassis.settings import Settings
from pydantic import EmailStr, SecretStr, model_validator


class AuthSettings(Settings):
    """Who the first admin is, with what tokens are signed and how mail goes out, beside what every service has."""

    service = "auth"

    bootstrap_email: EmailStr | None = None
    """Address of the admin that is made where there is no user yet."""
    bootstrap_password: SecretStr | None = None
    signing_key: Path
    """PEM file with the Ed25519 key that signs access tokens; made where it is missing."""
    session_hours: int = 12
    """How long a session lasts, however often it is refreshed."""
    invitation_days: int = 7
    """How long an invitation's one-time password works."""
    smtp_host: str
    smtp_port: int = 25
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_sender: str = "flip@localhost"
    gateway_url: str = ""
    """Where people open FLIP; stands in the mails."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.bootstrap_email is None) != (self.bootstrap_password is None):
            raise ValueError("FLIP_BOOTSTRAP_EMAIL and FLIP_BOOTSTRAP_PASSWORD go together")
        if self.smtp_user is not None and (self.smtp_password is None or self.smtp_security == "none"):
            raise ValueError("FLIP_SMTP_USER needs FLIP_SMTP_PASSWORD and FLIP_SMTP_SECURITY starttls or tls")
        return self
