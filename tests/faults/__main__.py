"""Kills on the local stack's nets: `python -m tests.faults` plays every case and prints what came of it."""

# ruff: noqa: T201

import argparse
import sys
import tempfile
from pathlib import Path

from .cases import FAULTS, FRAMEWORKS, STAGES, Case, Outcome, cases, table
from .play import Stuck
from .stage import stack


def main() -> int:
    asked = _asked()
    wanted = [case for case in cases() if _is_wanted(case, asked)]
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), {case.framework for case in wanted}) as on:
        outcomes, stuck = [], []
        for case in wanted:
            try:
                outcomes.append(_shown(on.play(case)))
            except Stuck as problem:
                stuck.append(problem)
                print(f"{case}: STUCK: {problem}", flush=True)
    print(table(outcomes))
    if asked.page:
        asked.page.write_text(_PAGE.format(table=table(outcomes), cases=len(outcomes)))
    return 1 if stuck or any(outcome.state != "finished" for outcome in outcomes) else 0


_PAGE = """# Faults

Written by `make faults`. A run of three rounds over two Trusts on the local stack; one process is killed with SIGKILL
at each stage. Training is disturbed after its first complete round, so that there is one to go on from.
{cases} cases; in each the net was free again and no process of the run was left.

{table}"""


def _shown(outcome: Outcome) -> Outcome:
    print(
        f"{outcome.case}: {outcome.state} {outcome.reason} after {outcome.attempts} attempts, {outcome.done_s:.1f} s;"
        f" net free after {outcome.free_s:.1f} s",
        flush=True,
    )
    return outcome


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--page", type=Path, help="where the table is written")
    return parser.parse_args()


def _is_wanted(case: Case, asked: argparse.Namespace) -> bool:
    return all(getattr(asked, name) in (None, getattr(case, name)) for name in ("framework", "fault", "stage"))


if __name__ == "__main__":
    sys.exit(main())
