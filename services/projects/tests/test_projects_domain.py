"""Projects, decisions and models: what the state machine promises."""

from collections.abc import Callable
from functools import reduce

import pytest
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Refused
from flip_chassis.testing import refused
from flip_contracts.base import Event, ModelId, ProjectId, UserId
from flip_contracts.projects import (
    ApprovalWithdrawn,
    EnrichmentConfirmed,
    ModelDeleted,
    ProjectApproved,
    ProjectCreated,
    ProjectDeclined,
    ProjectDeleted,
    ProjectStaged,
)
from flip_projects import domain
from flip_projects.domain import Answer, Definition, Details, Model, Project, SavedQuery, TrustReadiness, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

P1, M1 = ProjectId(uuid7()), ModelId(uuid7())
ADA, BOB = UserId(uuid7()), UserId(uuid7())
TRUSTS = frozenset({"KCH", "UCLH"})
CREATED = ProjectCreated(project_id=P1, owner=ADA, name="Deep nuclei", description="", members=frozenset())
STAGED = ProjectStaged(project_id=P1, trusts=TRUSTS, query_version=1)
KCH_APPROVED = ProjectApproved(project_id=P1, trust="KCH", reason="fine")
UCLH_APPROVED = ProjectApproved(project_id=P1, trust="UCLH", reason="fine")
READY = TrustReadiness(images_ready=True, labelled=True)
DETAILS = Details("Other", "words", frozenset({BOB}))
NNUNET = Definition("nnU-Net 2d", "", "nvflare", "nnunet")


def given_that(*events: Event) -> Project:
    return reduce(evolve, events, Project())


# --- details --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-1")
def test_the_owner_is_no_member_besides():
    created = domain.create(Project(), P1, ADA, Details("Name", "", frozenset({ADA, BOB})))
    assert (created.owner, created.members) == (ADA, {BOB})


@pytest.mark.requirement("PROJ-2")
@pytest.mark.parametrize("events", [(STAGED,), (STAGED, KCH_APPROVED)], ids=["staged", "approved"])
def test_details_are_locked_from_staging_on_and_the_error_says_what_opens_them(events: tuple[Event, ...]):
    project = given_that(CREATED, *events)
    with pytest.raises(Refused) as caught:
        domain.edit(project, P1, DETAILS)
    assert (caught.value.code, caught.value.facts) == ("project-not-in-draft", {"status": project.status})
    assert "un-stage" in caught.value.detail


# --- staging --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-5")
def test_a_project_without_a_saved_query_cannot_be_staged():
    with refused("query-not-saved"):
        domain.stage(given_that(CREATED), P1, TRUSTS, None)


@pytest.mark.requirement("PROJ-5")
def test_a_trust_that_has_not_answered_cannot_be_staged():
    with refused("trusts-without-answer", trusts=["UCLH"], query_version=3):
        domain.stage(given_that(CREATED), P1, TRUSTS, SavedQuery(3, frozenset({"KCH"})))


@pytest.mark.requirement("PROJ-5")
def test_staging_asks_the_chosen_trusts_only():
    said = domain.stage(given_that(CREATED), P1, frozenset({"KCH"}), SavedQuery(2, TRUSTS))
    assert (said.trusts, said.query_version) == ({"KCH"}, 2)
    assert given_that(CREATED, said).decisions == {"KCH": "asked"}


def test_nobody_is_not_whom_to_ask():
    with refused("no-trust-named", field="trusts"):
        domain.stage(given_that(CREATED), P1, frozenset(), SavedQuery(1, TRUSTS))


@pytest.mark.requirement("PROJ-2")
def test_unstaging_opens_the_draft_again_until_a_trust_has_approved():
    staged = given_that(CREATED, STAGED)
    draft = evolve(staged, domain.unstage(staged, P1, "typo"))
    assert draft.status == "draft"
    assert domain.edit(draft, P1, DETAILS).name == "Other"
    with refused("project-not-staged", status="approved"):
        domain.unstage(evolve(staged, KCH_APPROVED), P1, "too late")


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-6")
def test_a_project_is_approved_from_the_first_approval_on():
    staged = given_that(CREATED, STAGED)
    declined = evolve(staged, domain.decide(staged, P1, "UCLH", "declined", "no"))
    assert declined.status == "staged"
    approved = evolve(declined, domain.decide(declined, P1, "KCH", "approved", "yes"))
    assert (approved.status, approved.approved) == ("approved", {"KCH"})


@pytest.mark.requirement("PROJ-6")
def test_a_trust_that_was_not_asked_cannot_answer():
    with refused("trust-not-asked", trust="GSTT", asked=["KCH", "UCLH"]):
        domain.decide(given_that(CREATED, STAGED), P1, "GSTT", "approved", "yes")


@pytest.mark.requirement("PROJ-6")
@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (KCH_APPROVED, "approved"),
        (KCH_APPROVED, "declined"),
        (ProjectDeclined(project_id=P1, trust="KCH", reason="no"), "approved"),
        (ProjectDeclined(project_id=P1, trust="KCH", reason="no"), "withdrawn"),
        (None, "withdrawn"),
    ],
)
def test_a_decision_is_changed_only_along_its_machine(event: Event | None, answer: Answer):
    project = given_that(CREATED, STAGED, *([event] if event else []))
    with refused("decision-not-possible", trust="KCH", decision=project.decisions["KCH"]):
        domain.decide(project, P1, "KCH", answer, "again")


@pytest.mark.requirement("PROJ-7")
def test_a_trust_that_withdrew_takes_no_part():
    project = given_that(CREATED, STAGED, KCH_APPROVED, UCLH_APPROVED)
    project = evolve(project, domain.decide(project, P1, "KCH", "withdrawn", "consent"))
    assert (project.status, project.approved) == ("approved", {"UCLH"})


def test_nothing_is_decided_of_a_draft():
    with refused("project-not-staged", status="draft"):
        domain.decide(given_that(CREATED), P1, "KCH", "approved", "yes")


# --- enrichment -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("IMG-6")
def test_enrichment_is_refused_with_all_that_is_missing_at_once():
    project = given_that(CREATED, STAGED, KCH_APPROVED, UCLH_APPROVED)
    missing = [
        {"trust": "KCH", "code": "labels-not-registered"},
        {"trust": "UCLH", "code": "images-not-ready"},
        {"trust": "UCLH", "code": "labels-not-registered"},
    ]
    with refused("enrichment-not-ready", missing=missing):
        domain.confirm_enrichment(project, P1, {"KCH": TrustReadiness(images_ready=True)})


@pytest.mark.requirement("IMG-6")
def test_enrichment_needs_nothing_of_a_trust_that_takes_no_part():
    declined = ProjectDeclined(project_id=P1, trust="UCLH", reason="no")
    project = given_that(CREATED, STAGED, KCH_APPROVED, declined)
    assert domain.confirm_enrichment(project, P1, {"KCH": READY}) == EnrichmentConfirmed(project_id=P1)


@pytest.mark.requirement("IMG-6")
def test_enrichment_is_confirmed_again_only_for_a_trust_that_approved_since():
    project = given_that(CREATED, STAGED, KCH_APPROVED, EnrichmentConfirmed(project_id=P1))
    with refused("enrichment-already-confirmed"):
        domain.confirm_enrichment(project, P1, {"KCH": READY})
    later = evolve(project, UCLH_APPROVED)
    with refused("enrichment-not-ready"):
        domain.confirm_enrichment(later, P1, {"KCH": READY})
    assert domain.confirm_enrichment(later, P1, {"KCH": READY, "UCLH": READY})


def test_enrichment_of_nobody_is_refused():
    withdrawn = ApprovalWithdrawn(project_id=P1, trust="KCH", reason="no")
    project = given_that(CREATED, STAGED, KCH_APPROVED, withdrawn)
    with refused("no-trust-takes-part"):
        domain.confirm_enrichment(project, P1, {})


# --- deletion -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-4")
@pytest.mark.parametrize("events", [(), (STAGED,), (STAGED, KCH_APPROVED)], ids=["draft", "staged", "approved"])
def test_a_project_is_deleted_from_any_state_by_its_name(events: tuple[Event, ...]):
    project = given_that(CREATED, *events)
    with refused("name-does-not-match", field="name"):
        domain.delete(project, P1, "deep nuclei")
    assert evolve(project, domain.delete(project, P1, "Deep nuclei")).status == "deleted"


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("MODEL-1")
@pytest.mark.parametrize("events", [(), (STAGED,)], ids=["draft", "staged"])
def test_a_model_needs_an_approved_project(events: tuple[Event, ...]):
    project = given_that(CREATED, *events)
    with refused("project-not-approved", status=project.status):
        domain.create_model(Model(), M1, project, P1, NNUNET)


@pytest.mark.requirement("MODEL-1")
def test_a_model_is_edited_until_its_first_training_and_deleted_by_its_name():
    created = domain.create_model(Model(), M1, given_that(CREATED, STAGED, KCH_APPROVED), P1, NNUNET)
    model = domain.evolve_model(Model(), created)
    assert domain.edit_model(model, M1, P1, "New", "", trained=False).name == "New"
    with refused("model-already-trained"):
        domain.edit_model(model, M1, P1, "New", "", trained=True)
    with refused("name-does-not-match", field="name"):
        domain.delete_model(model, M1, P1, "New")
    gone = domain.evolve_model(model, domain.delete_model(model, M1, P1, "nnU-Net 2d"))
    with refused("model-not-found", status="deleted"):
        domain.delete_model(gone, M1, P1, "nnU-Net 2d")


# --- the machine ----------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[Project], Event]] = {
    "create": lambda project: domain.create(project, P1, ADA, DETAILS),
    "edit": lambda project: domain.edit(project, P1, DETAILS),
    "stage": lambda project: domain.stage(project, P1, TRUSTS, SavedQuery(1, TRUSTS)),
    "unstage": lambda project: domain.unstage(project, P1, "why"),
    "enrichment": lambda project: domain.confirm_enrichment(project, P1, dict.fromkeys(TRUSTS, READY)),
    "delete": lambda project: domain.delete(project, P1, project.name),
    **{
        f"{trust} {answer}": lambda project, trust=trust, answer=answer: domain.decide(
            project, P1, trust, answer, "why"
        )
        for trust in sorted(TRUSTS)
        for answer in ("approved", "declined", "withdrawn")
    },
}
PROJECT_WAYS = {
    ("absent", "draft"),
    ("draft", "staged"),
    ("staged", "draft"),
    ("staged", "approved"),
    ("draft", "deleted"),
    ("staged", "deleted"),
    ("approved", "deleted"),
}
DECISION_WAYS = {("asked", "approved"), ("asked", "declined"), ("approved", "withdrawn")}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=40))
def test_no_order_of_commands_leaves_the_drawn_state_machines(names: list[str]):
    project = Project()
    for name in names:
        try:
            after = evolve(project, COMMANDS[name](project))
        except Refused:
            continue
        assert after.status == project.status or (project.status, after.status) in PROJECT_WAYS
        for trust in project.decisions.keys() & after.decisions.keys():
            way = (project.decisions[trust], after.decisions[trust])
            assert way[0] == way[1] or way in DECISION_WAYS
        ever_approved = any(decision in {"approved", "withdrawn"} for decision in after.decisions.values())
        assert after.status == "deleted" or (after.status == "approved") == ever_approved
        assert after.status != "draft" or not after.decisions
        project = after


def test_nothing_follows_a_deletion():
    gone = given_that(CREATED, STAGED, KCH_APPROVED, ProjectDeleted(project_id=P1))
    for name, command in COMMANDS.items():
        with pytest.raises(Refused):
            pytest.fail(f"{name} was possible: {command(gone)}")


def test_an_event_of_another_kind_changes_nothing():
    project, model = given_that(CREATED), Model("defined", P1, "m")
    assert evolve(project, ModelDeleted(model_id=M1, project_id=P1)) is project
    assert domain.evolve_model(model, STAGED) is model
