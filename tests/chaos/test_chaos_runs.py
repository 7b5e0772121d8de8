"""The backbone keeps its promises under faults, and the checker catches what doesn't: on real Kafka and Postgres."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from .schedule import KINDS, Kind
from .stage import layout_for_chaos, stack

pytestmark = [pytest.mark.parts, pytest.mark.requirement("BUS-2")]

FAULTS: tuple[tuple[Kind, ...], ...] = (
    ("kill", "leave", "pause", "jump"),
    ("cut", "slow", "freeze", "refuse"),
    ("postgres-crash", "no-room", "repeat"),
    ("broker-kill", "repeat"),
    ("broker-restart", "kill"),
)


@pytest.fixture(scope="module", autouse=True)
def parts() -> Iterator[None]:
    """One stack for all of these tests."""
    with stack(layout_for_chaos()):
        yield


def chaos(*arguments: str) -> None:
    """Run the runner, which says what went wrong and how to see it again."""
    command = (sys.executable, "-m", "tests.chaos", *arguments)
    ended = subprocess.run(command, cwd=layout_for_chaos().checkout, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.fail(f"{ended.stdout}\n{ended.stderr}", pytrace=False)


def test_the_promises_hold_although_a_process_dies_at_every_crash_point():
    chaos("--points")


@pytest.mark.parametrize("kinds", FAULTS, ids=" ".join)
def test_the_promises_hold_under_faults(kinds: tuple[Kind, ...]):
    chaos("--faults", *kinds)


def test_every_kind_of_fault_is_played():
    assert {kind for kinds in FAULTS for kind in kinds} == set(KINDS)


def test_the_checker_catches_every_mutant_and_accuses_nobody_else():
    chaos("--mutants", "1")
