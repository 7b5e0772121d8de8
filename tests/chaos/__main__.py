"""Faults on the real backbone: `python -m tests.chaos --runs 200`; FLIP_CHAOS_SEED says with which seed to begin."""

# ruff: noqa: T201

import argparse
import asyncio
import fcntl
import logging
import os
import secrets
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from .history import KINDS, Violation
from .run import Outcome, play
from .scenarios import TRAPS, spring
from .schedule import KINDS as FAULTS
from .schedule import Schedule, drawn, of_kinds, of_points
from .stage import Stage, layout_for_chaos, stack, stage

SEED = "FLIP_CHAOS_SEED"
_SHOWN = 10
_RUN_S = 400.0


def main() -> int:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its broker comes and goes
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asked = _asked()
    first = int(os.environ.get(SEED) or secrets.randbelow(2**31))
    layout = layout_for_chaos()
    layout.state.mkdir(parents=True, exist_ok=True)
    with (layout.state / "chaos.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        with stack(layout):
            return asyncio.run(_main(asked, first))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--runs", type=int, default=1, help="so many runs with faults drawn by their seeds")
    what.add_argument("--points", action="store_true", help="one run in which a process dies at every crash point")
    what.add_argument("--faults", nargs="+", choices=FAULTS, help="one run with each of these kinds of fault")
    what.add_argument("--mutants", type=int, metavar="TIMES", help="each mutant so many times, and once without it")
    return parser.parse_args()


async def _main(asked: argparse.Namespace, first: int) -> int:
    layout = layout_for_chaos()
    folder = layout.state / "chaos"
    async with stage(layout) as on:
        if asked.mutants:
            return await _hunt(on, asked.mutants, folder)
        if asked.points:
            outcomes = await _runs(on, [of_points(first)], folder)
            missed = [death for outcome in outcomes for death in outcome.not_reached]
            for death in missed:
                print(f"not reached: {death}")
            return _conclude(outcomes) or bool(missed)
        if asked.faults:
            return _conclude(await _runs(on, [of_kinds(first, asked.faults)], folder))
        return _conclude(await _runs(on, map(drawn, range(first, first + asked.runs)), folder))


async def _runs(on: Stage, schedules: Iterable[Schedule], folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for schedule in schedules:
        print(f"seed {schedule.seed}: {schedule}", flush=True)
        async with asyncio.timeout(_RUN_S):
            outcome = await play(on, schedule, folder / str(schedule.seed))
        _show(outcome)
        outcomes.append(outcome)
    return outcomes


def _show(outcome: Outcome) -> None:
    print(
        f"    {'VIOLATED' if _is_bad(outcome) else 'kept'}: {outcome.said} events, {outcome.effects} effects,"
        f" {outcome.parked} parked, {outcome.lives} lives, {outcome.lasted_s:.1f} s",
        flush=True,
    )
    for line in outcome.broke:
        print(f"    {line}")
    _list(outcome.violations)
    if _is_bad(outcome):
        how = (
            "make chaos RUNS=1" if "--runs" in sys.argv else shlex.join(["python", "-m", "tests.chaos", *sys.argv[1:]])
        )
        print(f"    again: {SEED}={outcome.schedule.seed} {how}", flush=True)


def _is_bad(outcome: Outcome) -> bool:
    return bool(outcome.violations) or not outcome.said


def _list(violations: Sequence[Violation]) -> None:
    for violation in violations[:_SHOWN]:
        print(f"    {violation}")
    if len(violations) > _SHOWN:
        print(f"    and {len(violations) - _SHOWN} more")


def _conclude(outcomes: list[Outcome]) -> int:
    """Print the totals; the exit status."""
    found = Counter(violation.kind for outcome in outcomes for violation in outcome.violations)
    said, effects = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("said", "effects"))
    totals = ", ".join(f"{found[kind]} {kind}" for kind in KINDS)
    print(f"{len(outcomes)} runs, {said:,} events, {effects:,} effects: {totals}")
    seeds = [outcome.schedule.seed for outcome in outcomes]
    bad = [outcome.schedule.seed for outcome in outcomes if _is_bad(outcome)]
    print(f"seeds {min(seeds)} to {max(seeds)}" + (f"; violated: {bad}" if bad else ""))
    return 1 if bad else 0


async def _hunt(on: Stage, times: int, folder: Path) -> int:
    """Spring every trap, each mutant's often and once without it; 1 where the checker is wrong about one of them."""
    escaped = False
    for mutant, trap in TRAPS.items():
        async with asyncio.timeout(_RUN_S):
            right = await spring(on, trap, None, folder / "none")
        caught = 0
        for _ in range(times):
            async with asyncio.timeout(_RUN_S):
                found = await spring(on, trap, mutant, folder / mutant)
            caught += any(violation.kind == trap.caught_as for violation in found)
        print(f"{mutant}: caught {caught} times of {times} as {trap.caught_as}; without it {len(right)} violations")
        _list(right)
        escaped |= caught < times or bool(right)
    return int(escaped)


if __name__ == "__main__":
    sys.exit(main())
