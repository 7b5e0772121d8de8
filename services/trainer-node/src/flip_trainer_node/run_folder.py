"""A run's folder at the hub: what the framework's controller writes there, and what others are told of it.

    <work>/runs/<run id>/events.jsonl         one JSON object a line, numbered by `seq` over all attempts of the run
                         rounds/round_<n>.npz the averaged weights of each round, beside them their digest (`.sha256`)
                                              and how the run stood after it (`.json`)
                         earlier.zip          the results of an earlier run, where a prediction takes its model from it
                         app/                 the files of a researcher's own app

What the lines hold is `flip_nnunet.federation`'s and `flip_nnunet.conduct`'s word.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from flip_contracts.apps import FileName
from flip_contracts.base import RunId
from flip_contracts.scheduler import Checkpoint

from flip_trainer_node.hub_disk import hub_disk


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def of(cls, work: Path, run_id: RunId) -> "RunFolder":
        """The folder of a run under a controller's work folder."""
        return cls(work.absolute() / "runs" / str(run_id))

    def round(self, number: int) -> Path:
        """The file of a round's weights."""
        return self.path / "rounds" / f"round_{number:05d}.npz"

    @property
    def earlier(self) -> Path:
        """The file of an earlier run's results."""
        return self.path / "earlier.zip"

    def app(self, path: FileName) -> Path:
        """A file of a researcher's own app."""
        return self.path / "app" / path

    @hub_disk()
    def make(self) -> None:
        """Have the folder there."""
        self.round(0).parent.mkdir(parents=True, exist_ok=True)

    @hub_disk()
    def seal_round(self, checkpoint: Checkpoint) -> None:
        """Say what the weights of a round must be, for the trainer goes on from no others, and how the run stood."""
        self._digest_of(checkpoint.round).write_text(checkpoint.digest)
        best = None if checkpoint.best is None else checkpoint.best.model_dump(exclude={"object"})
        standing = orjson.dumps({"score": checkpoint.score, "best": best})
        self.round(checkpoint.round).with_suffix(".json").write_bytes(standing)
        if checkpoint.best is not None:
            self._digest_of(checkpoint.best.round).write_text(checkpoint.best.digest)

    def _digest_of(self, round_: int) -> Path:
        return self.round(round_).with_suffix(".sha256")

    def remove(self) -> None:
        """Delete it all."""
        if self.path.exists():
            shutil.rmtree(self.path)


class Tail:
    """Reads a growing `events.jsonl`, each line once; a line that is still being written is left for later."""

    def __init__(self, folder: RunFolder) -> None:
        self._file = folder.path / "events.jsonl"
        self._read = 0

    def has_grown(self) -> bool:
        """Whether anything has been written since the last call of `lines`."""
        return self._file.exists() and self._file.stat().st_size > self._read

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """What has been written since the last call."""
        if not self._file.exists():
            return
        with hub_disk(), self._file.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield orjson.loads(line)
                self._read += len(line)
