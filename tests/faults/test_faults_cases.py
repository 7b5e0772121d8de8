"""Which faults are played, and how their outcomes are shown."""

from .cases import FAULTS, FRAMEWORKS, STAGES, Case, Outcome, cases, table


def test_every_fault_is_played_at_every_stage_on_both_frameworks_but_where_nothing_trains_yet():
    played = set(cases())
    missing = {
        Case(framework, fault, stage) for framework in FRAMEWORKS for fault in FAULTS for stage in STAGES
    } - played
    assert missing == {Case(framework, "trainer", "preparing") for framework in FRAMEWORKS}


def test_the_table_says_why_a_run_has_not_finished():
    case = Case("flower", "trainer", "training")
    finished = Outcome(case, "finished", "", 2, 10.04, 11)
    failed = Outcome(case, "failed", "sites-failed", 1, 3, 4)
    *_, first, second = table([finished, failed]).splitlines()
    assert first == "| flower | trainer | training | finished | 2 | 10.0 s | 11.0 s |"
    assert second == "| flower | trainer | training | failed: sites-failed | 1 | 3.0 s | 4.0 s |"
