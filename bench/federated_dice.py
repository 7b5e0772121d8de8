"""What a federation learns beside what the pooled data would have taught, on the same number of steps.

    .local/trainer-flare/bin/python bench/federated_dice.py

Trains twice over the local harness: two sites, and one site that holds the data of both. Then both models predict cases
that neither saw, and the mean Dice of each structure is printed with the difference, which is wanted to be 0.02 at
most. The training must be long enough to converge: before that the mean of two sites' weights is far ahead of what one
site has learned.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from federated_data import write_data
from flip_nnunet.federation import federate
from flip_nnunet.inference import infer
from flip_nnunet.job import InferenceJob, Job
from flip_nnunet.local import LocalSites
from flip_nnunet.payload import DEMO
from flip_nnunet.store import FolderStore

NAME = "Dataset001_bench"
MOST = 0.02
SEEN = {"KCH": 1, "UCLH": 2}
UNSEEN = (3, 4)
UNSEEN_CASES = 4


def train(data: dict[str, Path], work: Path, rounds: int, iterations: int) -> Path:
    """Train over the sites; returns the results."""
    payload = {"mode": "training", "num_rounds": rounds, "dataset_id": 1, "model_configuration": "2d", "device": "cpu"}
    profile = {**DEMO.model_dump(), "name": "bench", "iterations_per_epoch": iterations}
    record = {"run_id": "bench", "dataset_name": NAME, "payload": payload, "profile": profile, "seed": 1}
    asked = Job.model_validate(record)
    with LocalSites(data, work, asked, minimum_cases=1) as sites:
        return federate(sites, asked, FolderStore(work / "hub"), lambda _: None).results.archive


def dice_of(results: Path, data: Path, work: Path) -> dict[str, float]:
    """The mean Dice of each structure over the cases in `data`."""
    payload = {
        "mode": "inference",
        "checkpoint_path": "run:bench",
        "dataset_subdirs": {"1": "imagesTr"},
        "device": "cpu",
    }
    record = {"run_id": "unseen", "payload": payload, "profile": DEMO.model_dump()}
    asked = InferenceJob.model_validate(record)
    (work / "hub").mkdir(parents=True)
    shutil.copyfile(results, work / "hub" / "earlier.zip")
    events: list[dict[str, Any]] = []
    with LocalSites({"TEST": data}, work, asked, minimum_cases=1) as sites:
        infer(sites, asked, FolderStore(work / "hub"), events.append)
    [predicted] = [event for event in events if event["kind"] == "predicted"]
    return {name: dice["mean"] for name, dice in predicted["sites"]["TEST"]["scores"]["dice"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Dice of federated beside pooled training.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=60, help="iterations of a round, at each site")
    parser.add_argument("--cases", type=int, default=6, help="cases of each site")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flip-bench-") as temporary:
        folder = Path(temporary)
        for site, seed in SEEN.items():
            write_data(folder / site, NAME, seed, given.cases)
            write_data(folder / "pooled", NAME, seed, given.cases)
        for seed in UNSEEN:
            write_data(folder / "unseen", NAME, seed, UNSEEN_CASES)
        contenders = {"federated": {site: folder / site for site in SEEN}, "pooled": {"ALL": folder / "pooled"}}
        dice = {
            name: dice_of(
                train(data, folder / f"train-{name}", given.rounds, given.iterations),
                folder / "unseen",
                folder / f"test-{name}",
            )
            for name, data in contenders.items()
        }
    apart = {name: abs(dice["federated"][name] - dice["pooled"][name]) for name in dice["pooled"]}
    steps = given.rounds * given.iterations
    told = {"steps": steps, **dice, "apart": apart, "wanted": MOST, "met": max(apart.values()) <= MOST}
    json.dump(told, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
