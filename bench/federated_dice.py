"""What a federation learns beside what the pooled data would have taught: the demo's data, the same number of steps.

    .local/venv/bin/python -m bench.federated_dice

Trains twice over the local harness, which comes to the weights of a net bit for bit: the demo's two Trusts, and one
site that holds the data of both. Plain nnU-Net then predicts the demo's held-out cases with each, and the mean Dice of
each structure is printed, with the difference. The training must be long enough to converge: before that, one site has
learned more than the mean of two.
"""

import json
import tempfile
from collections.abc import Mapping
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

from bench.federated import CONTENDERS, train

NAME, DATASET_ID = "Dataset001_bench", 1
MOST = 0.02
POOLED = "ALL"


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


def job_of(rounds: int, seed: int) -> dict[str, Any]:
    """The demo's job, for so many rounds."""
    payload = {
        "mode": "training",
        "num_rounds": rounds,
        "dataset_id": DATASET_ID,
        "model_configuration": "2d",
        "device": "cpu",
    }
    return {"run_id": "bench", "dataset_name": NAME, "seed": seed, "payload": payload, "profile": SMALL_MACHINE}


def dice_of(data: Mapping[str, Path], job: dict[str, Any], held_out: Path, folder: Path) -> Mapping[str, float]:
    """Train over these sites and predict the held-out cases; the mean Dice of each structure."""
    local, layout = CONTENDERS[0], Layout()
    train(local, job, {site: str(place) for site, place in data.items()}, folder / "work")
    [results] = (folder / "work" / "hub" / "results").glob("*.zip")
    predictions = folder / "predictions"
    predictions.mkdir()
    predict(layout, unpack(results, folder), DATASET_ID, held_out / "images", predictions)
    return mean_dice(predictions, held_out / "labels")


def main(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each site trains an epoch in each of them.")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="How often both are trained, each time with another seed.")] = 1,
) -> None:
    """Take the figures and print them."""
    layout = Layout()
    with tempfile.TemporaryDirectory(prefix="flip-bench-") as temporary:
        folder = Path(temporary)
        for trust in layout.trusts:
            for site in (trust, POOLED):
                write_trust(trust, layout.downloads, folder / site / "nnUNet_raw" / NAME, folder / "held-out")
        sites = {"federated": {trust: folder / trust for trust in layout.trusts}, "pooled": {POOLED: folder / POOLED}}
        found: dict[str, list[Mapping[str, float]]] = {name: [] for name in sites}
        for seed in range(1, seeds + 1):
            for name, data in sites.items():
                place = folder / f"{name}-{seed}"
                place.mkdir()
                found[name].append(dice_of(data, job_of(rounds, seed), folder / "held-out", place))
                typer.echo(f"seed {seed}, {name}: {json.dumps(found[name][-1])}")
    dice = {
        name: {structure: mean(each[structure] for each in of) for structure in of[0]} for name, of in found.items()
    }
    apart = {structure: dice["federated"][structure] - dice["pooled"][structure] for structure in dice["pooled"]}
    typer.echo(
        json.dumps({"rounds": rounds, **dice, "federated over pooled": apart, "wanted": f"within {MOST}"}, indent=1)
    )


if __name__ == "__main__":
    typer.run(main)
