"""A seed says all of a schedule, and the schedules reach every fault and every crash point."""

from collections.abc import Iterator

import pytest
from flip_chassis.crash import POINTS

from .schedule import KINDS, RELAYING, Schedule, drawn, of_kinds, of_points

SEEDS = range(300)


@pytest.fixture(scope="module")
def schedules() -> list[Schedule]:
    return [drawn(seed) for seed in SEEDS]


def replicas(schedule: Schedule) -> Iterator[str]:
    yield from (
        f"{service}/{number}" for service in ("projects", "cohort", "scheduler") for number in range(schedule.replicas)
    )


def test_a_seed_says_all_of_a_schedule(schedules: list[Schedule]):
    assert [drawn(seed) for seed in SEEDS] == schedules
    assert len(set(map(str, schedules))) == len(schedules)


def test_every_kind_of_fault_and_every_crash_point_is_drawn(schedules: list[Schedule]):
    assert {fault.kind for schedule in schedules for fault in schedule.faults} == set(KINDS)
    assert {death.point for schedule in schedules for death in schedule.deaths} == set(POINTS)


def test_what_is_drawn_meets_a_replica_that_is_there(schedules: list[Schedule]):
    for schedule in schedules:
        there = {*replicas(schedule), "projects", "cohort", "scheduler", "postgres", "kafka"}
        assert {fault.target for fault in schedule.faults} <= there
        assert {death.replica for death in schedule.deaths} <= there


def test_only_what_says_something_dies_while_saying(schedules: list[Schedule]):
    for schedule in [*schedules, of_points(0)]:
        for death in schedule.deaths:
            assert death.point not in RELAYING or not death.replica.startswith("scheduler")


def test_a_schedule_of_all_points_has_every_point_once():
    assert sorted(death.point for death in of_points(1).deaths) == sorted(POINTS)


def test_a_schedule_of_kinds_has_each_kind_once():
    assert sorted(fault.kind for fault in of_kinds(1, KINDS).faults) == sorted(KINDS)
