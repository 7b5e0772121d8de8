"""The settings of the cohort service, at the hub and at a Trust."""

from datetime import timedelta
from typing import Literal

from flip_chassis.settings import Settings
from pydantic import Field, SecretStr

from flip_cohort.disclosure import ROUNDING, THRESHOLD


class HubSettings(Settings):
    """At the hub."""

    service = "cohort"

    role: Literal["hub"]
    answer_within: timedelta = timedelta(hours=24)
    """How long a Trust may take to answer, an outage included."""
    queries_per_project: int = Field(100, ge=1)
    """The budget of query versions of a project: every answer tells a little more."""


class TrustSettings(Settings):
    """At a Trust."""

    service = "cohort"

    role: Literal["trust"]
    omop: SecretStr
    """DSN of the OMOP database for a role that may only read it."""
    disclosure_threshold: int = Field(THRESHOLD, ge=THRESHOLD)
    """The fewest distinct persons that a number may stand for."""
    disclosure_rounding: int = Field(ROUNDING, ge=ROUNDING)
    queries_per_project: int = Field(100, ge=1)
    statement_timeout_s: int = Field(60, ge=1)
    work_mem_mib: int = Field(64, ge=1)
    most_rows: int = Field(200_000, ge=1)
    """A query with more rows than this is not answered."""
    queries_at_once: int = Field(2, ge=1)
