"""One attempt of a run as a Flower run: an app without code, and where the hub finds the rest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
from flip_nnunet.message import digest
from flwr.cli.build import build_fab_from_files

from flip_flower.files import replace_json

ATTEMPT_FILE, ATTEMPT_TOKEN, ATTEMPT_DIGEST = "attempt-file", "attempt-token", "attempt-digest"
"""The run's configuration in Flower. The file is the hub's; a Trust learns its name and no more."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def checked_run_id(run_id: str) -> str:
    """`run_id`, which names folders and so may hold letters, digits, `_` and `-` only. Raises ValueError."""
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"run_id: {run_id!r} must match {_RUN_ID.pattern}")
    return run_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a run over some Trusts. `job` is a `flip_nnunet.job.Job` as JSON; `run_folder` is the hub's."""

    run_id: str
    number: int
    trusts: tuple[str, ...]
    run_folder: Path
    job: dict[str, Any]

    def __post_init__(self) -> None:
        checked_run_id(self.run_id)
        if self.job.get("run_id") != self.run_id:
            raise ValueError("job: its run_id must be the run's")
        if self.number < 1:
            raise ValueError("attempt: counts from 1")
        if not self.trusts:
            raise ValueError("trusts: at least one")
        if not self.run_folder.is_absolute():
            raise ValueError("run_folder: must be an absolute path")

    @property
    def token(self) -> str:
        """Names the attempt; there is one Flower run a token, however often the attempt is submitted."""
        return f"{self.run_id}.{self.number}"

    @property
    def digest(self) -> str:
        """Tells attempts of one name apart."""
        return digest(self._record())

    def write(self, folder: Path) -> Path:
        """Write the attempt below `folder`; returns the file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.run_id}-{self.number}.json"
        replace_json(path, self._record())
        return path

    def _record(self) -> dict[str, Any]:
        return asdict(self) | {"run_folder": str(self.run_folder)}


def read_attempt(path: Path) -> Attempt:
    """The attempt that `Attempt.write` wrote."""
    record = json.loads(path.read_bytes())
    given = record | {"trusts": tuple(record["trusts"]), "run_folder": Path(record["run_folder"])}
    return Attempt(**given)


def run_configuration(attempt: Attempt, path: Path) -> dict[str, str]:
    """The configuration of the attempt's Flower run."""
    return {ATTEMPT_FILE: str(path), ATTEMPT_TOKEN: attempt.token, ATTEMPT_DIGEST: attempt.digest}


@dataclass(frozen=True, slots=True)
class App:
    """What Flower calls an app: a bundle that names a ServerApp and a ClientApp. The same for every run."""

    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def make_app() -> App:
    """The app of every run. It brings no code: the hub and each Trust run what they have installed."""
    description = {
        "project": {"name": "flip-nnunet-run", "version": "1.0.0", "description": "Federated nnU-Net."},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "flip",
                    "components": {
                        "serverapp": "flip_flower.server_app:app",
                        "clientapp": "flip_flower.executor:client_app",  # a Trust never loads it
                    },
                    "config": {ATTEMPT_FILE: "", ATTEMPT_TOKEN: "", ATTEMPT_DIGEST: ""},
                }
            }
        },
    }
    content, _ = build_fab_from_files({"pyproject.toml": tomli_w.dumps(description).encode()})
    return App(content)
