"""`make demo`: install what is missing, start the stack, play the main job, and say what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from flip_client import Problem, Unreachable
from flip_client.hub import View
from flip_client.story import told
from flip_contracts.projects import Framework
from rich.console import Console
from rich.table import Table

from flip_local import control, install
from flip_local.control import StackProblem
from flip_local.credentials import Credentials
from flip_local.held_out import PredictionFailed, judge
from flip_local.layout import Layout
from flip_local.stack import of_net, usual
from flip_local.story import ADMIN, DATASET_ID, PASSWORD, Story, StoryFailed, plan_digests

SHOWN = Console(highlight=False, soft_wrap=True)
ENOUGH = 0.75
"""The least Dice of the striatum that shows that the model has learnt."""
ROUNDS_AGAIN = 3
"""Rounds of the second run: it shows that the same data is planned alike and trained, not that the model is good."""


def main() -> int:
    """0 where the whole story came true."""
    try:
        return play(Layout.from_environment())
    except (StackProblem, StoryFailed, PredictionFailed, Problem, Unreachable, ValueError) as problem:
        SHOWN.print(f"[red]{problem}[/red]")
        return 1


def play(layout: Layout) -> int:
    """The whole demo on one stack."""
    times: dict[str, float] = {}
    began = time.monotonic()
    SHOWN.rule("FLIP: federated nnU-Net over two Trusts")
    install.install(layout, lambda step: _news(f"installing {step}"))
    times["install"] = time.monotonic() - began
    _start(layout, "The stack starts", usual(layout))
    times["start the stack"] = time.monotonic() - began - times["install"]

    folder = layout.state / "demo" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    story = Story(layout, folder, step=_step, news=_news)
    story.play()
    times |= story.times_s

    _step("Plain nnU-Net predicts each Trust's held-out cases")
    since = time.monotonic()
    assert story.results is not None
    scores = judge(layout, story.results, DATASET_ID, folder)
    times["predict"] = time.monotonic() - since

    _step("The whole story, from the ledger")
    entries = story.ledger()
    for entry in entries:
        SHOWN.print(told(entry), markup=False)

    digests = _train_again(layout, story)
    times |= story.times_s
    times["all"] = time.monotonic() - began
    _summary(layout, story, times, scores, digests)
    SHOWN.print(f"a free net took the queued run after {_queued_s(entries):.3f} s")
    SHOWN.print("The stack stays up until: make down")
    learnt = all(score["striatum"] >= ENOUGH for score in scores.values())
    return 0 if learnt and _are_one(digests) else 1


def _train_again(layout: Layout, story: Story) -> Mapping[str, set[str]]:
    """The second run, on the other framework's net; answers the digests of both runs' plans."""
    _start(layout, "The Flower net starts", _net_of(layout, "flower"))
    again = story.train_again("flower", ROUNDS_AGAIN)
    entries = story.ledger(again)
    return {"FLARE": plan_digests(entries, story.run_id), "Flower": plan_digests(entries, again)}


def _are_one(digests: Mapping[str, set[str]]) -> bool:
    """Whether every run had a plan, and all had the same."""
    return all(digests.values()) and len(set[str]().union(*digests.values())) == 1


def _queued_s(entries: Sequence[View]) -> float:
    """Seconds from the run in the queue to the start of its submission: the first Trust is asked to prepare it."""
    queued, asked = (
        next(datetime.fromisoformat(entry["time"]) for entry in entries if f".{name}." in entry["type"])
        for name in ("RunQueued", "PrepareRun")
    )
    return (asked - queued).total_seconds()


def _net_of(layout: Layout, framework: Framework) -> list[str]:
    """The services of the stack's first net of a framework."""
    net = next(net for net in layout.nets if net.framework == framework)
    return of_net(layout, net)


def _start(layout: Layout, what: str, names: Iterable[str]) -> None:
    def show(part: str, state: str) -> None:
        if state == "ready":
            _news(f"{part} is ready")

    _step(what)
    control.up(layout, names, show)


def _step(text: str) -> None:
    SHOWN.print(f"\n[bold]{time.strftime('%H:%M:%S')}  {text}[/bold]")


def _news(text: str) -> None:
    SHOWN.print(f"          {text}", markup=False)


def _summary(
    layout: Layout,
    story: Story,
    times: Mapping[str, float],
    scores: Mapping[str, Mapping[str, float]],
    digests: Mapping[str, set[str]],
) -> None:
    SHOWN.rule("What came of it")
    spent = Table("stage", "seconds")
    for stage, seconds in times.items():
        spent.add_row(stage, f"{seconds:.1f}")
    SHOWN.print(spent)
    dice = Table("held-out Dice", *next(iter(scores.values())))
    for trust, score in scores.items():
        dice.add_row(trust, *(f"{value:.3f}" for value in score.values()))
    SHOWN.print(dice)
    SHOWN.print(f"{story.rounds} rounds are enough for the striatum; the smaller structures may still be on their way.")
    SHOWN.print(f"plan digests: {'equal' if _are_one(digests) else 'DIFFERENT'}")
    for framework, of_run in digests.items():
        SHOWN.print(f"   {framework:10} {', '.join(sorted(of_run))}")
    SHOWN.print(f"results:      {story.results}")
    SHOWN.print(f"gateway:      {layout.gateway_url}   (its CA: {layout.ca})")
    SHOWN.print(f"admin:        {ADMIN}   {Credentials(layout).bootstrap_password}", markup=False)
    SHOWN.print(f"researcher:   {story.researcher_email}   {PASSWORD}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
