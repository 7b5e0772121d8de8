"""The settings of the projects service: those that every service has."""

from flip_chassis.settings import Settings


class ProjectsSettings(Settings):
    """What every service is told."""

    service = "projects"
