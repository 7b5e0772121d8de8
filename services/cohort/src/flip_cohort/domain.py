"""Queries of a project at the hub, and the frozen cohort at a Trust: decisions and state changes, pure."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import Invalid, Refused, require
from flip_contracts.base import Message, ProjectId, Sha256, TrustCode
from flip_contracts.cohort import (
    CohortAnswered,
    CohortFreezeRefused,
    CohortFrozen,
    CohortQuerySaved,
    Outcome,
    TrustAnsweredQuery,
    TrustFrozeCohort,
    TrustRefusedFreeze,
)
from flip_contracts.topics import QUERY

AnswerState = Literal["sent", "running"] | Outcome
"""Where a Trust is with a version: `sent`, `running` from when it took it up, and then its answer, which is final."""


# --- at the hub: the versions of a project's query --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the query, with the state of each Trust that it was sent to."""

    digest: Sha256
    answers: Mapping[TrustCode, AnswerState]


@dataclass(frozen=True, slots=True)
class Queries:
    """All versions of a project's query, numbered from 1, and which version each Trust froze."""

    versions: tuple[Version, ...] = ()
    frozen: Mapping[TrustCode, int] = field(default_factory=dict[TrustCode, int])


def save(
    queries: Queries,
    project_id: ProjectId,
    *,
    status: str,
    digest: Sha256,
    imaging: bool,
    trusts: frozenset[TrustCode],
    known: frozenset[TrustCode],
    budget: int,
) -> CohortQuerySaved:
    """Save the next version and send it to `trusts` (COHORT-1, COHORT-7). `status` is the project's."""
    require(
        status == "draft",
        "project-not-in-draft",
        "The query is locked from staging on; an admin can un-stage.",
        state=status,
    )
    if not trusts:
        raise Invalid("no-trust-chosen", "Choose the Trusts to ask.", field="trusts")
    if unknown := sorted(trusts - known):
        raise Invalid("trust-unknown", "There are no such Trusts.", field="trusts", trusts=unknown)
    spent = len(queries.versions)
    require(spent < budget, "query-budget-spent", "The project has no queries left.", budget=budget)
    return CohortQuerySaved(
        project_id=project_id, query_version=spent + 1, query_digest=digest, trusts=trusts, imaging=imaging
    )


def answer(queries: Queries, trust: TrustCode, report: TrustAnsweredQuery) -> tuple[CohortAnswered, ...]:
    """Take a Trust's answer to a version that it was sent. What comes after its first answer changes nothing."""
    state = _version(queries, report.query_version).answers.get(trust)
    require(state is not None, "trust-not-asked", trust=trust, query_version=report.query_version)
    if state != "sent":
        return ()
    return (
        CohortAnswered(
            project_id=report.project_id,
            query_version=report.query_version,
            trust=trust,
            outcome=report.outcome,
            persons=report.persons,
            reason=report.reason,
        ),
    )


def freeze(queries: Queries, trust: TrustCode, report: TrustFrozeCohort) -> tuple[CohortFrozen, ...]:
    """Take a Trust's word that its cohort is frozen, once."""
    version = _version(queries, report.query_version)
    require(version.answers.get(trust) == "answered", "trust-has-not-answered", trust=trust)
    require(version.digest == report.query_digest, "query-digest-differs", trust=trust)
    if trust in queries.frozen:
        return ()
    return (
        CohortFrozen(
            project_id=report.project_id,
            trust=trust,
            query_version=report.query_version,
            query_digest=report.query_digest,
            persons=report.persons,
            studies=report.studies,
        ),
    )


def refuse_freeze(queries: Queries, trust: TrustCode, report: TrustRefusedFreeze) -> tuple[CohortFreezeRefused, ...]:
    """Take a Trust's word that it could not freeze its cohort."""
    if trust in queries.frozen:
        return ()
    return (
        CohortFreezeRefused(
            project_id=report.project_id, trust=trust, query_version=report.query_version, reason=report.reason
        ),
    )


def _version(queries: Queries, number: int) -> Version:
    require(1 <= number <= len(queries.versions), "query-version-unknown", query_version=number)
    return queries.versions[number - 1]


def evolve(queries: Queries, event: Message) -> Queries:
    """The state after `event`."""
    match event:
        case CohortQuerySaved(query_digest=digest, trusts=trusts):
            sent: dict[TrustCode, AnswerState] = dict.fromkeys(trusts, "sent")
            return replace(queries, versions=(*queries.versions, Version(digest, sent)))
        case CohortAnswered(query_version=number, trust=trust, outcome=outcome):
            versions = list(queries.versions)
            answered = versions[number - 1]
            versions[number - 1] = replace(answered, answers={**answered.answers, trust: outcome})
            return replace(queries, versions=tuple(versions))
        case CohortFrozen(query_version=number, trust=trust):
            return replace(queries, frozen={**queries.frozen, trust: number})
        case _:
            return queries


QUERIES = Aggregate(QUERY, Queries(), evolve)


# --- at a Trust: the frozen cohort ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """One person, and one study of theirs in a project with images."""

    person_id: int
    accession_id: str | None


Rows = Mapping[Member, Sequence[Mapping[str, Any]]]
"""What a query says of each member: its rows by the names of its columns, but for the columns that are identifiers."""


@dataclass(frozen=True, slots=True)
class FrozenCohort:
    """Who and what belongs to a project at this Trust, for good: members can leave, none can join (COHORT-9)."""

    query_version: int
    query_digest: Sha256
    members: frozenset[Member]
    rows: Rows = field(default_factory=dict[Member, Sequence[Mapping[str, Any]]])

    @property
    def persons(self) -> frozenset[int]:
        """The distinct persons."""
        return frozenset(member.person_id for member in self.members)

    @property
    def studies(self) -> frozenset[str]:
        """The distinct studies."""
        return frozenset(member.accession_id for member in self.members if member.accession_id is not None)

    def without(self, persons: AbstractSet[int]) -> "FrozenCohort":
        """The cohort that is left when `persons` have opted out."""
        return replace(self, members=frozenset(m for m in self.members if m.person_id not in persons))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a Trust remembers of a version that it was asked: what it said of it, none while it is at work."""

    query_digest: Sha256
    outcome: Outcome | None


def may_freeze(asked: Asked | None, query_digest: Sha256) -> Asked:
    """What is to be frozen: a query that this Trust has answered with a number, in that very text."""
    if asked is None:
        raise Refused("query-unknown")
    require(asked.query_digest == query_digest, "query-digest-differs")
    require(asked.outcome == "answered", "query-not-answered")
    return asked
