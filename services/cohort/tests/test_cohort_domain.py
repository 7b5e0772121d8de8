"""What may happen to a project's queries, and to a frozen cohort."""

from datetime import UTC, datetime

import pytest
from flip_chassis.ids import uuid7
from flip_chassis.testing import refused
from flip_cohort.api import Answer, add_up, answer_of
from flip_cohort.domain import QUERIES, Asked, FrozenCohort, Member, Queries, answer, freeze, may_freeze, save
from flip_contracts.base import Message, ProjectId, TrustCode
from flip_contracts.cohort import CohortAnswered, CohortFrozen, CohortQuerySaved, TrustAnsweredQuery, TrustFrozeCohort
from hypothesis import given
from hypothesis import strategies as st

P = ProjectId(uuid7())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "ab" * 32


def given_(*events: Message) -> Queries:
    return QUERIES.after(events)


def saved(version: int = 1, *trusts: TrustCode) -> CohortQuerySaved:
    return CohortQuerySaved(
        project_id=P, query_version=version, query_digest=DIGEST, trusts=frozenset(trusts or ("KCH",)), imaging=True
    )


def saving(queries: Queries, *, status: str = "draft", trusts: tuple[str, ...] = ("KCH",), budget: int = 9) -> object:
    return save(
        queries,
        P,
        status=status,
        digest=DIGEST,
        imaging=True,
        trusts=frozenset(trusts),
        known=frozenset({"KCH", "UCLH"}),
        budget=budget,
    )


def report(version: int = 1, persons: int = 20) -> TrustAnsweredQuery:
    return TrustAnsweredQuery(project_id=P, query_version=version, outcome="answered", persons=persons)


def froze(version: int = 1, digest: str = DIGEST) -> TrustFrozeCohort:
    return TrustFrozeCohort(project_id=P, query_version=version, query_digest=digest, persons=20, studies=20)


def answered(trust: TrustCode = "KCH", version: int = 1) -> CohortAnswered:
    return CohortAnswered(project_id=P, query_version=version, trust=trust, outcome="answered", persons=20)


@pytest.mark.requirement("COHORT-7")
def test_versions_are_numbered_from_one_and_kept():
    first = saving(Queries())
    assert first == saved(1)
    assert saving(given_(saved(1), answered())) == saved(2)
    assert given_(saved(1), answered(), saved(2)).versions[0].answers == {"KCH": "answered"}


@pytest.mark.requirement("COHORT-7")
@pytest.mark.parametrize("status", ["staged", "approved", "deleted"])
def test_a_project_that_is_no_draft_saves_no_query(status: str):
    with refused("project-not-in-draft", state=status):
        saving(Queries(), status=status)


@pytest.mark.requirement("COHORT-6")
def test_a_project_that_has_spent_its_queries_saves_no_more():
    with refused("query-budget-spent", budget=1):
        saving(given_(saved(1)), budget=1)


@pytest.mark.requirement("COHORT-1")
def test_only_trusts_that_there_are_can_be_asked_and_at_least_one():
    with refused("trust-unknown", trusts=["NOWHERE"]):
        saving(Queries(), trusts=("KCH", "NOWHERE"))
    with refused("no-trust-chosen", field="trusts"):
        saving(Queries(), trusts=())


@pytest.mark.requirement("COHORT-1")
def test_each_trust_answers_by_itself_and_once():
    asked = given_(saved(1, "KCH", "UCLH"))
    assert answer(asked, "KCH", report()) == (answered("KCH"),)
    after = given_(saved(1, "KCH", "UCLH"), answered("KCH"))
    assert after.versions[0].answers == {"KCH": "answered", "UCLH": "sent"}
    assert answer(after, "KCH", report(persons=99)) == ()
    assert answer(after, "UCLH", report()) == (answered("UCLH"),)


def test_a_trust_that_was_not_asked_has_no_answer_to_give():
    with refused("trust-not-asked", trust="UCLH"):
        answer(given_(saved(1)), "UCLH", report())
    with refused("query-version-unknown", query_version=2):
        answer(given_(saved(1)), "KCH", report(2))


@pytest.mark.requirement("COHORT-9")
def test_a_trust_freezes_once_the_text_that_it_has_answered():
    before = given_(saved(1), answered())
    (frozen,) = freeze(before, "KCH", froze())
    assert isinstance(frozen, CohortFrozen)
    assert freeze(QUERIES.evolve(before, frozen), "KCH", froze()) == ()
    with refused("query-digest-differs"):
        freeze(before, "KCH", froze(digest="cd" * 32))
    with refused("trust-has-not-answered"):
        freeze(given_(saved(1)), "KCH", froze())


@pytest.mark.requirement("COHORT-9")
def test_a_trust_freezes_only_what_it_answered_with_a_number():
    may_freeze(Asked(DIGEST, "answered"), DIGEST)
    with refused("query-unknown"):
        may_freeze(None, DIGEST)
    with refused("query-digest-differs"):
        may_freeze(Asked(DIGEST, "answered"), "cd" * 32)
    for outcome in (None, "suppressed", "refused", "failed", "timed_out"):
        with refused("query-not-answered"):
            may_freeze(Asked(DIGEST, outcome), DIGEST)


members = st.frozensets(st.builds(Member, st.integers(1, 30), st.none() | st.sampled_from("abcdef")))


@pytest.mark.requirement("COHORT-9")
@given(members, st.frozensets(st.integers(1, 40)))
def test_a_frozen_cohort_shrinks_by_those_who_opt_out_and_by_nobody_else(found: frozenset[Member], out: frozenset[int]):
    cohort = FrozenCohort(1, DIGEST, found)
    left = cohort.without(out)
    assert left.members <= cohort.members
    assert left.persons == cohort.persons - out


@pytest.mark.requirement("COHORT-8")
@pytest.mark.parametrize(
    ("state", "overdue", "seen"),
    [
        ("sent", True, "timed_out"),
        ("running", True, "timed_out"),
        ("sent", False, "sent"),
        ("answered", True, "answered"),
    ],
)
def test_a_trust_that_is_overdue_has_timed_out_for_who_asks(state: str, overdue: bool, seen: str):
    row = {"trust": "KCH", "state": state, "persons": None, "reason": None, "distributions": None, "at": NOW}
    answer = answer_of(row, overdue=overdue)
    assert answer.state == seen
    assert answer.reason == ("no-answer-in-time" if seen == "timed_out" else None)


@pytest.mark.requirement("COHORT-5")
def test_what_trusts_add_up_to_leaves_out_those_without_a_number():
    def told(trust: TrustCode, persons: object, bars: dict[str, int]) -> Answer:
        return Answer.model_validate(
            {
                "trust": trust,
                "state": "answered",
                "persons": persons,
                "reason": None,
                "distributions": {"sex": bars},
                "at": NOW,
            }
        )

    together = add_up([told("KCH", 30, {"F": 20, "M": 10}), told("UCLH", 10, {"F": 10}), told("RFH", "suppressed", {})])
    assert (together.trusts, together.persons) == (["KCH", "UCLH"], 40)
    assert together.distributions == {"sex": {"F": 30, "M": 10}}
