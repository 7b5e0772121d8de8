"""`python -m bench`: take the figures, print the goals, write the page."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop
from flip_chassis.service import collect_less_garbage
from flip_local.layout import CHECKOUT, Layout
from rich.console import Console

from bench.chapters import chain, consumer, http, inbox, latency, queue, rebuild, relay
from bench.ground import ground
from bench.machine import machine
from bench.report import Chapter, Scale, figure, markdown

CHAPTERS = {
    "relay": relay.run,
    "inbox": inbox.run,
    "consumer": consumer.run,
    "latency": latency.run,
    "queue": queue.run,
    "http": http.run,
    "rebuild": rebuild.run,
    "chain": chain.run,
}
FULL = Scale(rounds=5, size=1.0)
QUICK = Scale(rounds=1, size=0.2)
_console = Console(highlight=False)


def main(
    *,
    only: Annotated[list[str], typer.Option(help=f"One of {', '.join(CHAPTERS)}; may be repeated.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="One small round each.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Postgres and Kafka up for the next run.")] = False,
    page: Annotated[Path | None, typer.Option(help="Where the page is written.")] = None,
    state: Annotated[Path, typer.Option(envvar="FLIP_BENCH_STATE")] = CHECKOUT / ".local" / "bench-stack",
    port_base: Annotated[int, typer.Option(envvar="FLIP_BENCH_PORT_BASE")] = 28800,
) -> None:
    """Run the benchmarks side by side with the peers."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    collect_less_garbage()  # as every service does
    scale = QUICK if quick else FULL
    chapters: list[Chapter] = []
    with ground(replace(Layout(), state=state.absolute(), port_base=port_base), keep=keep) as stands:
        where = machine(stands)
        for name in only or CHAPTERS:
            chapter = uvloop.run(CHAPTERS[name](stands, scale))
            _show(chapter)
            chapters.append(chapter)
    if page:
        page.write_text(markdown(chapters, where, scale.rounds))


def _show(chapter: Chapter) -> None:
    _console.print(f"\n[bold]{chapter.title}[/bold]")
    for series in chapter.series:
        _console.print(f"  {figure(series.median, series.unit):>12}  {series.name}")
    for goal in chapter.goals:
        colour = "green" if goal.is_met else "red"
        sign = "<=" if goal.at_most else ">="
        _console.print(
            f"  [{colour}]{figure(goal.reached, goal.unit):>12}[/]  wanted {sign} {figure(goal.wanted, goal.unit)}:"
            f" {goal.what}"
        )


if __name__ == "__main__":
    typer.run(main)
