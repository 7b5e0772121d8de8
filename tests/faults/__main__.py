"""Faults on the local stack's nets: `python -m tests.faults` plays every case and prints what came of it."""

# ruff: noqa: T201

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event

from .cases import FAULTS, FRAMEWORKS, STAGES, Case, Outcome, cases, played_before, table
from .play import PlayedNet, Stuck
from .stage import nets


def main() -> int:
    asked = _asked()
    outcomes = list(played_before(asked.kept))
    done = {outcome.case for outcome in outcomes}
    wanted = [case for case in cases() if _is_wanted(case, asked) and case not in done]
    if os.geteuid() != 0 and any(case.fault == "disk" for case in wanted):
        sys.exit("A full disk takes root, who may make a small one: leave it out by --fault, or be root.")
    if wanted:
        outcomes += _play(wanted, asked.kept)
    shown = table(outcomes)
    print(shown)
    promised = sum(outcome.is_as_promised for outcome in outcomes)
    if asked.page:
        played, all_cases = len(outcomes), len(list(cases()))
        asked.page.write_text(_PAGE.format(table=shown, played=played, all=all_cases, promised=promised))
    return 0 if promised == len(outcomes) else 1


_KEPT = Path("docs", "faults.jsonl")
_PAGE = """# Faults

Written by `make faults` from [the outcomes](faults.jsonl), which it adds to: without that file it begins anew. A run of
two rounds, in the first cases of three, over two Trusts on the local stack, and one fault at each of its stages:

* a process is killed with SIGKILL: the net's controller, the framework's server, or at one Trust the worker, the
  framework's client or the trainer;
* one Trust's network: for 60 s nothing comes through between its client and the net's server;
* one Trust's disk: nothing is free on it until the run has ended;
* one Trust answers with NaN, by another plan, in another shape, for an older round, or nothing at all, from its second
  round on. The run needs one Trust at least: it goes on without the answer, and says why.

Training is disturbed after its first complete round, so that there is one to go on from; exporting is what comes after
the last one, and collecting begins when the results are made. {played} of the {all} cases are played; {promised} of
these came out as promised: the run finished, or failed with the full disk as its reason. In each of them the net was
free again and no process of the run was left; the next case is played on the same net. The nets of the two frameworks
play their cases side by side on one stack: no fault of one stopped a run of the other. Times are of two cores that do
all of it.

{table}"""


def _play(wanted: Sequence[Case], keep_in: Path) -> Iterator[Outcome]:
    with (
        tempfile.TemporaryDirectory() as folder,
        nets(Path(folder), {case.framework for case in wanted}) as played,
        ThreadPoolExecutor(len(played)) as players,
    ):
        over = Event()
        try:
            for each in as_completed([players.submit(_play_on, net, wanted, keep_in, over) for net in played]):
                yield from each.result()
        finally:
            over.set()


def _play_on(net: PlayedNet, wanted: Sequence[Case], keep_in: Path, over: Event) -> Sequence[Outcome]:
    """Play the cases of the net's framework, until all are played or it is over."""
    outcomes: list[Outcome] = []
    for case in (case for case in wanted if case.framework == net.net.framework):
        if over.is_set():
            break
        outcomes.append(_shown(_outcome(net, case)))
        with keep_in.open("a") as kept:
            kept.write(outcomes[-1].line())
    return outcomes


def _outcome(net: PlayedNet, case: Case) -> Outcome:
    try:
        return net.play(case)
    except Stuck as problem:
        return Outcome(case, "stuck", str(problem))


def _shown(outcome: Outcome) -> Outcome:
    print(
        f"{outcome.case}: {outcome.state} {outcome.reason} after {outcome.attempts} attempts, {outcome.done_s:.1f} s;"
        f" net free after {outcome.free_s:.1f} s; left out: {sorted(outcome.left_out)}",
        flush=True,
    )
    return outcome


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="one of them or more; all if none is named")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument(
        "--kept",
        type=Path,
        default=_KEPT,
        help="where outcomes are kept; what an earlier call played isn't played again",
    )
    parser.add_argument("--page", type=Path, help="where the table is written")
    return parser.parse_args()


def _is_wanted(case: Case, asked: argparse.Namespace) -> bool:
    return (
        (asked.framework in (None, case.framework))
        and (asked.stage in (None, case.stage))
        and (asked.fault is None or case.fault in asked.fault)
    )


if __name__ == "__main__":
    sys.exit(main())
