"""The frameworks that a net can run on, and all in which they differ for the platform.

A package of this project binds federated nnU-Net to each framework. All of them have the same modules, with the same
command lines, the same lines of JSON to the driver and the same events of a run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip_contracts.projects import Framework


@dataclass(frozen=True, slots=True)
class Runtime:
    """A framework as people call it, and the package that binds it."""

    name: str
    package: str

    def module(self, name: str) -> tuple[str, str]:
        """How an interpreter is told to run a module of the package."""
        return ("-m", f"{self.package}.{name}")

    def site(self, runs: Path, minimum_cases: int, sandbox: Mapping[str, Any]) -> Mapping[str, str]:
        """What the client at a Trust is told by its environment: the package's `site_settings`."""
        told = {"RUNS": str(runs), "MINIMUM_CASES": str(minimum_cases), "SANDBOX": json.dumps(sandbox)}
        return {f"{self.package.upper()}_{name}": value for name, value in told.items()}

    @property
    def trainer_script(self) -> str:
        """The module by which a trainer's command line is known."""
        return f"{self.package}.trainer_script"


RUNTIMES: Mapping[Framework, Runtime] = {
    "nvflare": Runtime("FLARE", "flip_flare"),
    "flower": Runtime("Flower", "flip_flower"),
}
