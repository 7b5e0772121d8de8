"""What `cohort` says, what it asks of a Trust, and what the Trust answers."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from flip_contracts.base import (
    Command,
    Confidential,
    Event,
    Open,
    ProjectId,
    ReasonCode,
    Released,
    Report,
    Sha256,
    TrustCode,
)
from flip_contracts.topics import COHORT_COMMANDS, COHORT_REPORTS, QUERY

Outcome = Literal["answered", "suppressed", "refused", "failed", "timed_out"]
Distribution = dict[str, Released]
"""Distinct persons by category, each as it may leave the Trust."""


class CohortQuerySaved(Event, topic=QUERY, version=1):
    """A version of the project's query was saved and sent to the chosen Trusts. Its digest stands for the text."""

    project_id: ProjectId
    query_version: int
    query_digest: Sha256
    trusts: frozenset[TrustCode]
    imaging: bool


class CohortAnswered(Event, topic=QUERY, version=1):
    """A Trust's answer to one version of the query: how many distinct persons fit, or why there is no number."""

    project_id: ProjectId
    query_version: int
    trust: TrustCode
    outcome: Annotated[Outcome, Open("failed")]
    persons: Released | None
    reason: ReasonCode | None = None


class CohortFrozen(Event, topic=QUERY, version=1):
    """A Trust fixed the persons and studies of the project. All later work uses these; they can shrink, never grow."""

    project_id: ProjectId
    trust: TrustCode
    query_version: int
    query_digest: Sha256
    persons: Released
    studies: Released


class CohortFreezeRefused(Event, topic=QUERY, version=1):
    """A Trust could not fix the cohort; it takes no part until an operator there has acted."""

    project_id: ProjectId
    trust: TrustCode
    query_version: int
    reason: ReasonCode


class RunCohortQuery(Command, topic=COHORT_COMMANDS, version=1):
    """Count the persons that fit, by your own rules, before the deadline."""

    project_id: ProjectId
    query_version: int
    query_digest: Sha256
    sql: Annotated[str, Confidential()]
    imaging: bool
    deadline: AwareDatetime


class FreezeCohort(Command, topic=COHORT_COMMANDS, version=1):
    """Fix the persons and studies that this version of the query, which you answered, finds now."""

    project_id: ProjectId
    query_version: int
    query_digest: Sha256


class TrustTookUpQuery(Report, topic=COHORT_REPORTS, version=1):
    """A Trust has begun to run a query."""

    project_id: ProjectId
    query_version: int


class TrustAnsweredQuery(Report, topic=COHORT_REPORTS, version=1):
    """A Trust's answer, past its disclosure control. `distributions` is by column of the query, then by category."""

    project_id: ProjectId
    query_version: int
    outcome: Annotated[Outcome, Open("failed")]
    persons: Released | None = None
    distributions: dict[str, Distribution] = Field(default_factory=dict)
    reason: ReasonCode | None = None


class TrustFrozeCohort(Report, topic=COHORT_REPORTS, version=1):
    """The Trust fixed its cohort of the project."""

    project_id: ProjectId
    query_version: int
    query_digest: Sha256
    persons: Released
    studies: Released


class TrustRefusedFreeze(Report, topic=COHORT_REPORTS, version=1):
    """The Trust could not fix its cohort of the project."""

    project_id: ProjectId
    query_version: int
    reason: ReasonCode
