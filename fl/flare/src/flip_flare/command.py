"""How FLARE's long-lived processes are started."""

from __future__ import annotations

import sys
from pathlib import Path


def flare_command(module: str, kit: Path, specification: str, *settings: str) -> list[str]:
    """The command line of a FLARE parent process in secure mode."""
    known = ("secure_train=true", "config_folder=config")
    return [sys.executable, "-u", "-m", module, "-m", str(kit), "-s", specification, "--set", *known, *settings]
