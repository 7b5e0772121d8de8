"""The settings of the audit service."""

from flip_chassis.settings import Settings


class AuditSettings(Settings):
    """What every service has."""

    service = "audit"
