"""A study's state machine, the hours of the PACS, and which counts leave a Trust."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flip_chassis.refusal import Refused
from flip_chassis.testing import refused
from flip_contracts.base import Event, ProjectId
from flip_imaging.disclosure import release
from flip_imaging.domain import (
    DATASETS,
    REASONS,
    STUDIES,
    DatasetAdopted,
    DatasetDropped,
    ImportRetried,
    ImportStarted,
    PullHours,
    ReimportCapReached,
    Retries,
    Study,
    StudyImported,
    StudyImportFailed,
    adopt,
    begin,
    delete,
    drop,
    fail,
    finish,
    forget,
    queue,
    register_label,
    retry,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

STUDY_ID = UUID(int=7)
PROJECT_ID = ProjectId(UUID(int=8))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETRIES = Retries(cap=2, first=timedelta(minutes=1))
IMPORTED = StudyImported(
    study_id=STUDY_ID,
    project_id=PROJECT_ID,
    patient="P1",
    modality="MR",
    study_instance_uid="2.25.1",
    series_instance_uid="2.25.2",
    frame_of_reference_uid="2.25.3",
    image_sha256="0" * 64,
    instances=1,
    actions={},
    left_out={},
)


def after(*events: Event) -> Study:
    return STUDIES.after(events)


def queued() -> list[Event]:
    return queue(Study(), STUDY_ID, PROJECT_ID, "C1")


@pytest.mark.requirement("IMG-1")
def test_a_study_that_is_known_is_not_queued_again() -> None:
    study = after(*queued())
    assert queue(study, STUDY_ID, PROJECT_ID, "C1") == []


@pytest.mark.requirement("IMG-3")
def test_a_study_that_keeps_failing_is_tried_cap_more_times_and_then_rests() -> None:
    events, now, pauses = queued(), NOW, []
    while (state := after(*events)).state != "capped":
        events.append(begin(state, now, RETRIES))
        events.append(fail(after(*events), "timed-out", now, RETRIES))
        if isinstance(failed := events[-1], StudyImportFailed):
            pauses.append(failed.retry_at - now)
            now = failed.retry_at
    assert sum(isinstance(event, ImportStarted) for event in events) == 1 + RETRIES.cap
    assert pauses == [timedelta(minutes=1), timedelta(minutes=2)]


@pytest.mark.requirement("IMG-3")
def test_a_failed_study_is_not_begun_before_its_time() -> None:
    events = [*queued(), begin(after(*queued()), NOW, RETRIES)]
    events.append(fail(after(*events), "timed-out", NOW, RETRIES))
    with refused("study-not-due"):
        begin(after(*events), NOW + timedelta(seconds=59), RETRIES)


@pytest.mark.requirement("IMG-3")
def test_the_operator_gives_a_resting_study_all_its_attempts_again() -> None:
    capped = after(*queued(), ReimportCapReached(study_id=STUDY_ID, project_id=PROJECT_ID, reason="not-found"))
    study = STUDIES.evolve(capped, retry(capped))
    assert (study.state, study.attempts) == ("queued", 0)


@pytest.mark.requirement("IMG-3")
def test_a_study_that_takes_its_worker_down_every_time_reaches_the_cap() -> None:
    events = queued()
    while not isinstance(events[-1], ReimportCapReached):
        events.append(begin(after(*events), NOW, RETRIES))
        assert len(events) < 10
    assert events[-1].reason == "interrupted"


@pytest.mark.requirement("IMG-6")
def test_only_an_imported_study_takes_a_label() -> None:
    with refused("study-not-imported", state="queued"):
        register_label(after(*queued()), "0" * 64, None, {"striatum": 1})


def test_the_pause_between_attempts_is_bounded() -> None:
    assert Retries(cap=1000).pause(999) == timedelta(hours=6)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: states follow the machine, and attempts stay within the cap."""

    def __init__(self) -> None:
        super().__init__()
        self.events = queued()
        self.now = NOW

    @property
    def study(self) -> Study:
        return after(*self.events)

    @precondition(lambda self: self.study.state in ("queued", "failed", "importing"))
    @rule()
    def begin(self) -> None:
        self.now = max(self.now, self.study.retry_at or self.now)
        self.events.append(begin(self.study, self.now, RETRIES))

    @precondition(lambda self: self.study.state == "importing")
    @rule(reason=st.sampled_from(REASONS))
    def fail(self, reason: str) -> None:
        self.events.append(fail(self.study, reason, self.now, RETRIES))  # type: ignore[arg-type]

    @precondition(lambda self: self.study.state == "importing")
    @rule()
    def finish(self) -> None:
        self.events.append(finish(self.study, IMPORTED))

    @precondition(lambda self: self.study.state in ("failed", "capped"))
    @rule()
    def retry(self) -> None:
        self.events.append(retry(self.study))

    @precondition(lambda self: self.study.state != "deleted")
    @rule()
    def delete(self) -> None:
        self.events.append(delete(self.study))

    @invariant()
    def attempts_stay_within_the_cap(self) -> None:
        since = [i for i, event in enumerate(self.events) if isinstance(event, ImportRetried)]
        begun = [event for event in self.events[since[-1] if since else 0 :] if isinstance(event, ImportStarted)]
        assert len(begun) <= 1 + RETRIES.cap

    @precondition(lambda self: self.study.state == "deleted")
    @rule()
    def nothing_follows_a_deletion(self) -> None:
        for decide in (retry, delete, lambda study: finish(study, IMPORTED), lambda study: begin(study, NOW, RETRIES)):
            with pytest.raises(Refused):
                decide(self.study)


TestAnyHistory = AnyHistory.TestCase


@pytest.mark.requirement("IMG-7")
@pytest.mark.parametrize(
    ("begin_hour", "end_hour", "hour", "allowed"),
    [(0, 24, 3, True), (20, 6, 23, True), (20, 6, 5, True), (20, 6, 6, False), (8, 18, 18, False), (8, 18, 8, True)],
)
def test_the_pacs_is_asked_in_its_hours_only(begin_hour: int, end_hour: int, hour: int, allowed: bool) -> None:
    assert PullHours(begin_hour, end_hour).allow(NOW.replace(hour=hour)) is allowed


COUNTS = st.dictionaries(st.sampled_from(["queued", "importing", "imported", "failed", "capped"]), st.integers(0, 40))


@pytest.mark.requirement("IMG-2")
@given(counts=COUNTS, threshold=st.integers(1, 15))
def test_no_small_count_of_studies_leaves_the_trust(counts: dict[str, int], threshold: int) -> None:
    for cell, told in release(counts, threshold).items():
        assert told == "suppressed" or (told == counts[cell] and (told == 0 or told >= threshold))


@pytest.mark.requirement("IMG-2")
@given(counts=COUNTS, threshold=st.integers(1, 15))
def test_the_total_gives_no_small_count_away(counts: dict[str, int], threshold: int) -> None:
    told = release(counts, threshold)
    hidden = [cell for cell, count in told.items() if count == "suppressed"]
    shown = [cell for cell, count in told.items() if count not in ("suppressed", 0)]
    rest = sum(counts.values()) - sum(counts[cell] for cell in shown)
    if hidden and shown:
        assert len(hidden) >= 2
        assert rest >= threshold


ADOPTED = DatasetAdopted(
    project_id=PROJECT_ID,
    name="Dataset001_Brain",
    cases=3,
    channels=["T1"],
    labels={"core": 1},
    dataset_sha256="a" * 64,
    manifest_sha256="b" * 64,
)
OTHER = ADOPTED.model_copy(update={"dataset_sha256": "c" * 64})
NO_DATASET, A_DATASET = DATASETS.initial, DATASETS.after([ADOPTED])


@pytest.mark.requirement("NNU-12")
def test_the_same_data_set_again_changes_nothing_unless_its_copy_must_be_mended() -> None:
    assert adopt(NO_DATASET, ADOPTED, stands=False, training_has_begun=False) == [ADOPTED]
    for begun in (False, True):
        assert adopt(A_DATASET, ADOPTED, stands=True, training_has_begun=begun) == []
        assert adopt(A_DATASET, ADOPTED, stands=False, training_has_begun=begun) == [ADOPTED]


@pytest.mark.requirement("NNU-12")
def test_once_training_has_begun_a_projects_cases_stay_what_they_are() -> None:
    assert adopt(A_DATASET, OTHER, stands=True, training_has_begun=False) == [OTHER]
    for dataset in (NO_DATASET, A_DATASET):
        with refused("training-has-begun"):
            adopt(dataset, OTHER, stands=True, training_has_begun=True)
    with refused("training-has-begun"):
        drop(A_DATASET, PROJECT_ID, training_has_begun=True)


@pytest.mark.requirement("NNU-12")
def test_a_data_set_is_given_up_once_and_goes_with_its_project() -> None:
    dropped = DatasetDropped(project_id=PROJECT_ID)
    assert drop(A_DATASET, PROJECT_ID, training_has_begun=False) == dropped
    assert DATASETS.after([ADOPTED, dropped]) == NO_DATASET
    with refused("dataset-not-registered"):
        drop(NO_DATASET, PROJECT_ID, training_has_begun=False)
    assert (forget(A_DATASET, PROJECT_ID), forget(NO_DATASET, PROJECT_ID)) == ([dropped], [])
