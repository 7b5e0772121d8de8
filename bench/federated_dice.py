"""What a federation learns beside what the pooled data would have taught: the demo's data, the same number of steps.

    .local/venv/bin/python -m bench.federated_dice --seeds 3 --page docs/benchmarks-dice.md

Trains over the local harness, which comes to the weights of a net bit for bit: the demo's two Trusts, and one site that
holds the data of both; and the Trusts again with batches that processes of their own draw, and two threads, as where
there is a GPU. Plain nnU-Net then predicts the demo's held-out cases with each, and the mean Dice of each structure is
taken, with the differences. The training must be long enough to converge: before that, one site has learned more than
the mean of two.

Nothing is timed, so the runs may be taken beside other work. What came of each is kept; one that an earlier call took
isn't taken again.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from flip_local.data.images import STRUCTURES, read_hemisphere, volume, write_nifti
from flip_local.data.people import hospital, patients
from flip_local.data.source import templates
from flip_local.held_out import mean_dice, predict, unpack
from flip_local.layout import Layout
from flip_local.services import SMALL_MACHINE
from pydantic import BaseModel

from bench.federated import CONTENDERS, train

NAME, DATASET_ID = "Dataset001_bench", 1
MOST = 0.02
_KEPT = Path("docs", "benchmarks-dice.jsonl")
POOLED = "ALL"
BY_CHANCE = {"threads": 2, "augmentation_processes": 1}
"""What makes a run come out otherwise each time: sums in any order, batches of processes with random seeds."""
_PAGE = """\
# Federated beside pooled training

Written by `python -m bench.federated_dice` from [the runs](benchmarks-dice.jsonl), to which it adds those that are
missing. The demo's two Trusts train together, and one site trains on the data of
both: {rounds} rounds of as many steps a site, 2d, seeds 1 to {seeds}. Plain nnU-Net predicts the demo's held-out cases
with each. Dice of a structure is the mean over these cases; below, the mean of all seeds, with the lowest and the
highest. Wanted: not further apart than {wanted}.

{federated}

Both have converged by then. Long before it they are further apart: one site has learned more than the mean of two.
"""
_PAGE_BY_CHANCE = """
## Where bits can't agree

With one thread and batches made in the training process, two runs of a seed end with the same bits. With more threads,
processes that draw batches, or a GPU, they can't. The same runs with two threads and a process for batches at each
site, beside those above; wanted, again: not further apart than {wanted}.

{by_chance}
"""


def write_trust(trust: str, parts: Path, training: Path, held_out: Path) -> None:
    """Add the Trust's cases, as the demo draws them, to a data set of nnU-Net's and to the held-out ones."""
    at = hospital(trust)
    hemisphere = read_hemisphere(templates(parts), at.side)
    for patient in patients(trust):
        scan = volume(hemisphere, at, patient.number)
        images, labels = ("images", "labels") if patient.held_out else ("imagesTr", "labelsTr")
        folder = held_out if patient.held_out else training
        for place, values, ending in ((images, scan.image, "_0000.nii.gz"), (labels, scan.label, ".nii.gz")):
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_nifti(folder / place / f"{patient.case}{ending}", values, scan.affine)
    if training.exists():
        description = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, **{name: value for value, name in STRUCTURES.items()}},
            "numTraining": len(list((training / "labelsTr").iterdir())),
            "file_ending": ".nii.gz",
        }
        (training / "dataset.json").write_text(json.dumps(description))


def job_of(rounds: int, seed: int, changes: Mapping[str, int]) -> dict[str, Any]:
    """The demo's job, for so many rounds, with these changes of its profile."""
    payload = {
        "mode": "training",
        "num_rounds": rounds,
        "dataset_id": DATASET_ID,
        "model_configuration": "2d",
        "device": "cpu",
    }
    profile = {**SMALL_MACHINE, **changes}
    return {"run_id": "bench", "dataset_name": NAME, "seed": seed, "payload": payload, "profile": profile}


def dice_of(data: Mapping[str, Path], job: dict[str, Any], held_out: Path, folder: Path) -> Mapping[str, float]:
    """Train over these sites and predict the held-out cases; the mean Dice of each structure."""
    local, layout = CONTENDERS[0], Layout()
    train(local, job, {site: str(place) for site, place in data.items()}, folder / "work")
    [results] = (folder / "work" / "hub" / "results").glob("*.zip")
    predictions = folder / "predictions"
    predictions.mkdir()
    predict(layout, unpack(results, folder), DATASET_ID, held_out / "images", predictions)
    return mean_dice(predictions, held_out / "labels")


class Taken(BaseModel):
    """What came of one run: the mean Dice of each structure."""

    run: str
    rounds: int
    seed: int
    dice: dict[str, float]


def taken_before(kept: Path) -> list[Taken]:
    """What earlier calls kept in this file, a line each."""
    return [Taken.model_validate_json(line) for line in kept.read_text().splitlines()] if kept.exists() else []


def markdown(found: Mapping[str, Sequence[Mapping[str, float]]], rounds: int) -> str:
    """The page."""
    seeds, federated = len(found["pooled"]), _beside(found, "federated", "pooled")
    page = _PAGE.format(rounds=rounds, seeds=seeds, wanted=MOST, federated=federated)
    if "by chance" not in found:
        return page
    return page + _PAGE_BY_CHANCE.format(wanted=MOST, by_chance=_beside(found, "by chance", "federated"))


def _beside(found: Mapping[str, Sequence[Mapping[str, float]]], one: str, other: str) -> str:
    """A line a structure, with the mean of all seeds and the lowest and highest."""
    rows = [f"| structure | {one} | {other} | apart |  |", "| --- | --- | --- | --- | --- |"]
    for structure in found[one][0]:
        of = [each[structure] for each in found[one]], [each[structure] for each in found[other]]
        apart = mean(of[0]) - mean(of[1])
        met = "met" if abs(apart) <= MOST else "**missed**"
        rows.append(f"| {structure} | {_spread(of[0])} | {_spread(of[1])} | {apart:+.3f} | {met} |")
    return "\n".join(rows)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each site trains an epoch in each of them.")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="How often both are trained, each time with another seed.")] = 1,
    by_chance: Annotated[bool, typer.Option(help="Also where bits can't agree, which takes the longest.")] = True,
    kept: Annotated[Path, typer.Option(help="Where what came of each run is kept.")] = _KEPT,
    page: Annotated[Path | None, typer.Option(help="Where the page is written.")] = None,
) -> None:
    """Take the figures and print them, or write the page."""
    layout, before = Layout(), taken_before(kept)
    with tempfile.TemporaryDirectory(prefix="flip-bench-") as temporary:
        folder = Path(temporary)
        for trust in layout.trusts:
            for site in (trust, POOLED):
                write_trust(trust, layout.downloads, folder / site / "nnUNet_raw" / NAME, folder / "held-out")
        trusts = {trust: folder / trust for trust in layout.trusts}
        runs = {
            "pooled": ({POOLED: folder / POOLED}, {}),
            "federated": (trusts, {}),
        }
        if by_chance:
            runs["by chance"] = (trusts, BY_CHANCE)
        found: dict[str, list[Mapping[str, float]]] = {name: [] for name in runs}
        for seed, (name, (data, changes)) in product(range(1, seeds + 1), runs.items()):
            [taken] = [it for it in before if (it.run, it.rounds, it.seed) == (name, rounds, seed)] or [None]
            if taken is None:
                place = folder / f"{name}-{seed}".replace(" ", "-")
                place.mkdir()
                dice = dice_of(data, job_of(rounds, seed, changes), folder / "held-out", place)
                taken = Taken(run=name, rounds=rounds, seed=seed, dice=dict(dice))
                with kept.open("a") as lines:
                    lines.write(taken.model_dump_json() + "\n")
            typer.echo(f"seed {seed}, {name}: {json.dumps(taken.dice)}")
            found[name].append(taken.dice)
    text = markdown(found, rounds)
    typer.echo(text)
    if page is not None:
        page.write_text(text)


if __name__ == "__main__":
    typer.run(main)
