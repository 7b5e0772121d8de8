"""What the hub keeps of one run, in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from flip_nnunet.files import replace_file
from flip_nnunet.message import Json, Weights, weights_digest
from flip_nnunet.standing import Standing


class RoundMissing(Exception):
    """The weights of a round are not here, or no longer what was saved."""

    code = "round-missing"


class ModelMissing(Exception):
    """The results of the earlier run that a prediction needs are not here."""

    code = "model-missing"


class FolderStore:
    """`rounds/round_00000.npz` (with `.sha256` and `.json`), `records/NAME.json` and `results/` below one folder.

    The results of an earlier run, where the job needs them, are put at `earlier.zip` by whoever starts it.

    A file is there whole or not at all. `keep_rounds`: how many of the last rounds stay; None for all.
    """

    def __init__(self, folder: Path, keep_rounds: int | None = None) -> None:
        self._folder = folder
        self._keep_rounds = keep_rounds

    def save_round(self, number: int, weights: Weights) -> str:
        digest = weights_digest(weights)
        file = self._round_file(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.parent / "unfinished"
        with unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **weights)
        file.with_suffix(".sha256").write_text(digest, "ascii")
        unfinished.replace(file)
        if self._keep_rounds is not None:
            for old in sorted(file.parent.glob("round_*.npz"))[: -self._keep_rounds]:
                old.unlink()
                old.with_suffix(".sha256").unlink()
                old.with_suffix(".json").unlink(missing_ok=True)
        return digest

    def save_standing(self, number: int, standing: Standing) -> None:
        replace_file(self._round_file(number).with_suffix(".json"), standing.model_dump_json().encode())

    def load_standing(self, number: int) -> Standing:
        file = self._round_file(number).with_suffix(".json")
        return Standing.model_validate_json(file.read_bytes()) if file.is_file() else Standing()

    def load_round(self, number: int) -> Weights:
        file = self._round_file(number)
        if not file.is_file():
            raise RoundMissing(f"round {number}: its weights are not stored")
        with np.load(file, allow_pickle=False) as stored:
            weights = {name: stored[name] for name in stored.files}
        if weights_digest(weights) != file.with_suffix(".sha256").read_text("ascii"):
            raise RoundMissing(f"round {number}: its weights are not those that were saved")
        return weights

    def save_record(self, name: str, record: Json) -> None:
        file = self._folder / "records" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(record, indent=1, sort_keys=True, allow_nan=False), "utf-8")
        unfinished.replace(file)

    def earlier_results(self) -> Path:
        archive = self._folder / "earlier.zip"
        if not archive.is_file():
            raise ModelMissing("checkpoint_path: the results of the earlier run are not stored")
        return archive

    def results(self) -> Path:
        folder = self._folder / "results"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _round_file(self, number: int) -> Path:
        return self._folder / "rounds" / f"round_{number:05d}.npz"
