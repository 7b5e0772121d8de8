"""The checker finds each kind of violation in histories of a few events, and none in a right one."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from .history import Event, History, Reaction, violations

pytestmark = pytest.mark.requirement("BUS-2")


def event(number: int, version: int, *, key: str = "a", source: str = "projects", cause: Event | None = None) -> Event:
    return Event(UUID(int=number), source, source, key, version, cause.id if cause else None)


A1, A2, A3, B1 = event(1, 1), event(2, 2), event(3, 3), event(11, 1, key="b")
STREAMS = [A1, A2, A3, B1]


def history(
    logged: Sequence[Event] = STREAMS,
    *,
    effects: Sequence[Event] = STREAMS,
    parked: Sequence[Event] = (),
    **more: object,
) -> History:
    right = History(
        logged=logged,
        committed=(),
        undone=frozenset(),
        effects={"cohort": effects},
        parked={"cohort": parked},
        hears={"cohort": frozenset({"projects"})},
    )
    return replace(right, **more)  # type: ignore[arg-type]


def found(history: History) -> list[str]:
    return [str(violation) for violation in violations(history)]


def test_a_history_that_keeps_the_promises_passes():
    assert found(history(committed=[A1, B1], undone=frozenset({UUID(int=99)}))) == []


def test_streams_may_take_effect_in_any_order_among_each_other():
    assert found(history(effects=[A1, B1, A2, A3])) == []
    assert found(history(effects=[B1, A1, A2, A3])) == []


def test_what_waits_is_not_lost_where_all_that_follows_it_waits_too():
    assert found(history(effects=[A1, B1], parked=[A2, A3])) == []


def test_an_event_without_effect_is_lost():
    (text,) = found(history(effects=[A1, A3, B1]))
    assert text.startswith("lost in cohort: projects projects/a@2 ")
    assert text.endswith("never took effect")


def test_the_last_event_of_a_stream_can_be_lost_too():
    assert len(found(history(effects=[A1, A2, B1]))) == 1
    assert len(found(history(effects=[A1, A2, A3]))) == 1


def test_a_committed_event_that_is_missing_in_the_log_is_lost():
    (text,) = found(history([A1, A2, B1], effects=[A1, A2, B1], committed=[A1, A3]))
    assert text.startswith("lost in projects's log: projects projects/a@3 ")


def test_an_effect_of_what_an_earlier_run_has_said_is_not_invented():
    assert found(history([A1, A2, A3], earlier=frozenset({B1.id}))) == []


def test_an_event_with_two_effects_is_doubled():
    (text,) = found(history(effects=[A1, A2, A2, A3, B1]))
    assert text.startswith("doubled in cohort: projects projects/a@2 ")
    assert text.endswith("took effect 2 times")


def test_a_late_repetition_is_doubled_and_nothing_else():
    assert [text.split()[0] for text in found(history(effects=[A1, A2, A3, B1, A1]))] == ["doubled"]


def test_an_event_that_took_effect_and_still_waits_is_doubled():
    assert [text.split()[0] for text in found(history(parked=[A3]))] == ["doubled"]


def test_an_event_that_waits_twice_is_doubled():
    assert [text.split()[0] for text in found(history(effects=[A1, A2, B1], parked=[A3, A3]))] == ["doubled"]


def test_an_event_that_overtakes_an_earlier_one_of_its_stream_is_reordered():
    (text,) = found(history(effects=[A2, A1, A3, B1]))
    assert text.startswith("reordered in cohort: projects projects/a@2 ")
    assert "overtook projects projects/a@1" in text


def test_an_event_that_takes_effect_while_an_earlier_one_waits_is_reordered():
    (text,) = found(history(effects=[A1, A3, B1], parked=[A2]))
    assert "a@3" in text.partition("overtook")[0]
    assert "a@2" in text.partition("overtook")[2]


def test_what_waits_in_the_wrong_order_is_reordered():
    assert [text.split()[0] for text in found(history(effects=[A1, B1], parked=[A3, A2]))] == ["reordered"]


def test_a_hole_in_the_versions_of_a_stream_is_a_gap():
    (text,) = found(history([A1, A3], effects=[A1, A3]))
    assert text == "gap in projects's log: projects/a: version 3 stands where 2 should"


def test_a_version_that_was_given_twice_is_a_gap():
    twin = event(4, 2)
    assert [text.split()[0] for text in found(history([A1, A2, twin], effects=[A1, A2, twin]))] == ["gap"]


def test_an_effect_of_what_was_never_committed_is_invented():
    (text,) = found(history([A1, A2, A3]))
    assert text.startswith("invented in cohort: projects projects/b@1 ")


def test_a_row_of_a_transaction_that_was_taken_back_is_invented():
    (text,) = found(history(undone=frozenset({A3.id})))
    assert text.startswith("invented in projects's log: ")


class TestReactions:
    REACTIONS = (Reaction("cohort", "projects"),)

    def judged(self, *answers: Event) -> list[str]:
        return found(history([A1, A2, *answers], effects=[A1, A2], reactions=self.REACTIONS))

    def answer(self, number: int, version: int, cause: Event) -> Event:
        return event(number, version, source="cohort", cause=cause)

    def test_each_event_is_answered_once_in_order(self):
        assert self.judged(self.answer(21, 1, A1), self.answer(22, 2, A2)) == []

    def test_an_event_without_an_answer_has_lost_it(self):
        (text,) = self.judged(self.answer(21, 1, A1))
        assert text.startswith("lost in cohort's reactions: projects projects/a@2 ")

    def test_an_event_with_two_answers_is_doubled(self):
        (text,) = self.judged(self.answer(21, 1, A1), self.answer(22, 2, A2), self.answer(23, 3, A2))
        assert text.startswith("doubled in cohort's reactions: projects projects/a@2 ")

    def test_answers_in_another_order_than_their_causes_are_reordered(self):
        (text,) = self.judged(self.answer(21, 2, A1), self.answer(22, 1, A2))
        assert text.startswith("reordered in cohort's reactions: ")
