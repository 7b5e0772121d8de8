"""One attempt of a run as a Flower run: an app without code, and where the hub finds the rest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
from flip_nnunet.attempt import Attempt
from flip_nnunet.files import replace_json
from flip_nnunet.message import digest
from flwr.cli.build import build_fab_from_files

ATTEMPT_FILE, ATTEMPT_TOKEN, ATTEMPT_DIGEST = "attempt-file", "attempt-token", "attempt-digest"
"""The run's configuration in Flower. The file is the hub's; a Trust learns its name and no more."""


def attempt_digest(attempt: Attempt) -> str:
    """Tells attempts of one token apart."""
    return digest(_record(attempt))


def write_attempt(attempt: Attempt, folder: Path) -> Path:
    """Write the attempt below `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{attempt.run_id}-{attempt.number}.json"
    replace_json(path, _record(attempt))
    return path


def _record(attempt: Attempt) -> dict[str, Any]:
    return asdict(attempt) | {"run_folder": str(attempt.run_folder)}


def read_attempt(path: Path) -> Attempt:
    """The attempt that `write_attempt` wrote."""
    record = json.loads(path.read_bytes())
    given = record | {"trusts": tuple(record["trusts"]), "run_folder": Path(record["run_folder"])}
    return Attempt(**given)


def run_configuration(attempt: Attempt, path: Path) -> dict[str, str]:
    """The configuration of the attempt's Flower run."""
    return {ATTEMPT_FILE: str(path), ATTEMPT_TOKEN: attempt.token, ATTEMPT_DIGEST: attempt_digest(attempt)}


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
