"""Seconds per round of each framework beside the local harness, on the same images in the same run.

    .local/venv/bin/python -m bench.federated --page docs/benchmarks-federated.md

Each contender trains the same job by the interpreter of its own environment (`federated_run.py`); they take turns. A
round's seconds are the hub's, from the question to the stored mean. What the slowest site trained of them is nnU-Net's
own; the rest is what federating costs.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from flip_contracts.projects import Framework
from flip_local.layout import Layout
from rich.console import Console

from bench.federated_data import write_data
from bench.machine import hardware

SITES = ("KCH", "UCLH")
CASES = 10
_SCRIPT = Path(__file__).with_name("federated_run.py")
_INTRODUCTION = """\
Written by `python -m bench.federated`. The contenders train the same job on the same made-up images, in turns, and come
to the same weights bit for bit. A round is timed at the hub, from the question to the stored mean; its overhead is what
the slowest site didn't train of it. The first round of a run, which builds nnU-Net's trainer, doesn't count. Two sites,
2d, one thread a site; medians, with the lowest and the highest.
"""
_console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Contender:
    """What trains: `argument` of `federated_run.py`, in the environment of a framework."""

    name: str
    argument: str
    framework: Framework
    most_over_local_s: float | None = None
    """How much longer than the local harness a round may take."""


CONTENDERS = (
    Contender("local harness", "local", "nvflare"),
    Contender("FLARE", "flare", "nvflare", 0.7),
    Contender("Flower", "flower", "flower", 4.0),
)
LONG_ROUND_S, MOST_SHARE = 60.0, 0.05
"""Rounds so long, or longer, may take so much longer than over the local harness."""
_LONG_ROUNDS = 3
_MARGIN = 1.1
"""Rounds may come out shorter than what a few before them took."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The rounds of one contender but the first of each run, which builds nnU-Net's trainer."""

    contender: Contender
    seconds: Sequence[float]
    overheads: Sequence[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the contenders took for rounds of so many iterations, the local harness first."""

    iterations: int
    taken: Sequence[Taken]

    @property
    def local_s(self) -> float:
        return median(self.taken[0].seconds)


def job_of(run_id: str, rounds: int, iterations: int) -> dict[str, Any]:
    """The demo's network on the demo's batches; only the number of iterations is free."""
    return {
        "run_id": run_id,
        "dataset_name": "Dataset001_bench",
        "seed": 1,
        "payload": {
            "mode": "training",
            "num_rounds": rounds,
            "dataset_id": 1,
            "model_configuration": "2d",
            "device": "cpu",
        },
        "profile": {
            "name": "bench",
            "base_features": 16,
            "max_features": 64,
            "max_batch_size": 12,
            "iterations_per_epoch": iterations,
            "validation_iterations": 3,
            "threads": 1,
            "augmentation_processes": 0,
            "intensity_voxels": 10**6,
        },
    }


def train(contender: Contender, job: dict[str, Any], data: dict[str, str], work: Path) -> list[dict[str, Any]]:
    """Train the job; its rounds."""
    specification = work.with_suffix(".json")
    specification.write_text(json.dumps({"job": job, "data": data, "work": str(work)}))
    command = [Layout().trainer_python(contender.framework), _SCRIPT, contender.argument, specification]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this project's own
    return json.loads(done.stdout)


def measure(turns: int, rounds: int, iterations: int, folder: Path) -> Comparison:
    """Let the contenders take turns. Raises ValueError if they don't all come to the same weights."""
    data = {site: str(folder / site) for site in SITES}
    for seed, site in enumerate(SITES):
        write_data(folder / site, "Dataset001_bench", seed, CASES)
    seconds: dict[Contender, list[float]] = {contender: [] for contender in CONTENDERS}
    overheads: dict[Contender, list[float]] = {contender: [] for contender in CONTENDERS}
    digests: set[tuple[str, ...]] = set()
    for turn in range(turns):
        for contender in CONTENDERS:
            name = f"{contender.argument}{turn}"
            done = train(contender, job_of("bench", rounds, iterations), data, folder / name)
            digests.add(tuple(each["digest"] for each in done))
            seconds[contender] += [each["seconds"] for each in done[1:]]
            overheads[contender] += [each["seconds"] - each["trained"] for each in done[1:]]
            _console.print(f"turn {turn + 1}, {contender.name}: {median(seconds[contender]):.2f} s per round")
    if len(digests) > 1:
        raise ValueError("the contenders did not train the same weights")
    return Comparison(
        iterations, [Taken(contender, seconds[contender], overheads[contender]) for contender in CONTENDERS]
    )


def markdown(short: Comparison, long: Comparison, where: Sequence[tuple[str, str]]) -> str:
    """The page."""
    goals = [
        f"| {what} | ≤ {wanted} | {reached} | {'met' if met else '**missed**'} |"
        for what, wanted, reached, met in (*_goals(short), *_long_goals(long))
    ]
    return "\n".join(
        [
            "# Benchmarks of federated training",
            "",
            _INTRODUCTION,
            "| goal | wanted | reached |  |",
            "| --- | --- | --- | --- |",
            *goals,
            "",
            *_table("Rounds of the demo's size", short),
            *_table(f"Rounds of {LONG_ROUND_S:.0f} s or more", long),
            "## The machine",
            "",
            "|  |  |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in where),
            "",
        ]
    )


def _table(title: str, compared: Comparison) -> list[str]:
    rows = [
        f"| {each.contender.name} | {_spread(each.seconds)} | {median(each.seconds) - compared.local_s:+.2f} s"
        f" | {median(each.seconds) / compared.local_s:.2f} | {_spread(each.overheads)} |"
        for each in compared.taken
    ]
    return [
        f"## {title}",
        "",
        f"{compared.iterations} iterations a round, {len(compared.taken[0].seconds)} rounds of each contender.",
        "",
        "| contender | seconds per round | over the local harness | ratio | overhead of a round |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _goals(short: Comparison) -> Iterator[tuple[str, str, str, bool]]:
    for each in short.taken:
        most = each.contender.most_over_local_s
        if most is not None:
            over = median(each.seconds) - short.local_s
            yield f"{each.contender.name}: a round over the local harness", f"{most} s", f"{over:.2f} s", over <= most


def _long_goals(long: Comparison) -> Iterator[tuple[str, str, str, bool]]:
    for each in long.taken[1:]:
        share = median(each.seconds) / long.local_s - 1
        what = f"{each.contender.name}: rounds of {long.local_s:.0f} s over the local harness"
        yield what, f"{MOST_SHARE:.0%}", f"{share:.1%}", share <= MOST_SHARE


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(
    *,
    turns: Annotated[int, typer.Option(min=1, help="How often each contender trains the job.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of the job.")] = 6,
    iterations: Annotated[int, typer.Option(min=1, help="Iterations of a round.")] = 60,
    page: Annotated[Path | None, typer.Option(help="Where the page is written.")] = None,
) -> None:
    """Take the figures and print them, or write the page."""
    where = hardware()
    with tempfile.TemporaryDirectory(prefix="flip-bench-") as name:
        folder = Path(name)
        short = measure(turns, rounds, iterations, folder / "short")
        enough = ceil(_MARGIN * iterations * LONG_ROUND_S / short.local_s)
        long = measure(1, _LONG_ROUNDS, enough, folder / "long")
    text = markdown(short, long, where)
    _console.print(text)
    if page is not None:
        page.write_text(text)


if __name__ == "__main__":
    typer.run(main)
