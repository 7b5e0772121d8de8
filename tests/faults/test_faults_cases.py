"""Which faults are played, what counts as promised, and how outcomes are shown."""

from pathlib import Path

import pytest

from .cases import ANSWERS, FAULTS, FRAMEWORKS, STAGES, Case, Outcome, cases, played_before, table


def test_every_fault_is_played_at_every_stage_in_which_it_can_come():
    everywhere = {Case(framework, fault, stage) for framework in FRAMEWORKS for fault in FAULTS for stage in STAGES}
    nobody_trains = {Case(framework, "trainer", "preparing") for framework in FRAMEWORKS}
    nobody_asks = {case for case in everywhere if case.fault in ANSWERS and case.stage != "training"}
    assert set(cases()) == everywhere - nobody_trains - nobody_asks


@pytest.mark.parametrize(
    ("outcome", "is_as_promised"),
    [
        (Outcome(Case("flower", "trainer", "training"), "finished", ""), True),
        (Outcome(Case("flower", "trainer", "training"), "failed", "sites-failed"), False),
        (Outcome(Case("flower", "trainer", "training"), "stuck", "a free net"), False),
        (
            Outcome(Case("flower", "disk", "training"), "failed", "sites-failed train_round failed at KCH: disk-full."),
            True,
        ),
        (Outcome(Case("flower", "disk", "training"), "failed", "internal-error"), False),
        (Outcome(Case("flower", "nan", "training"), "finished", "", left_out=frozenset({"not-finite"})), True),
        (Outcome(Case("flower", "nan", "training"), "finished", ""), False),
    ],
)
def test_a_run_comes_through_or_says_why_and_never_counts_what_is_wrong(outcome: Outcome, is_as_promised: bool):
    assert outcome.is_as_promised == is_as_promised


def test_what_one_call_played_the_next_one_knows(tmp_path: Path):
    kept = tmp_path / "kept"
    assert list(played_before(kept)) == []
    outcomes = [
        Outcome(Case("flower", "nan", "training"), "finished", "", 1, 10.04, 11, frozenset({"not-finite"})),
        Outcome(Case("nvflare", "server", "training"), "stuck", "a free net"),
    ]
    kept.write_text("".join(outcome.line() for outcome in outcomes))
    assert list(played_before(kept)) == outcomes


def test_the_table_says_why_a_run_has_not_finished_and_whose_answers_did_not_count():
    finished = Outcome(Case("flower", "nan", "training"), "finished", "", 1, 10.04, 11, frozenset({"not-finite"}))
    failed = Outcome(Case("flower", "trainer", "training"), "failed", "sites-failed", 1, 3, 4)
    *_, first, second = table([failed, finished]).splitlines()
    assert second == "| flower | nan | training | finished, without its answers: not-finite | 1 | 10.0 s | 11.0 s |"
    assert first == "| flower | trainer | training | failed: sites-failed | 1 | 3.0 s | 4.0 s |"
