"""What an inspection of a file can find."""

from flip_contracts.base import ReasonCode
from flip_contracts.files import AppConfiguration, Finding
from pydantic import BaseModel, Field


class Inspection(BaseModel):
    """What was found: a reason to refuse the file, with where it stands; else what its readers want to know."""

    refused: ReasonCode | None = None
    detail: str = ""
    findings: list[Finding] = Field(default_factory=list[Finding])
    configuration: AppConfiguration | None = None
