"""Tasks of the stack: modules of this package that do one thing once and end."""

from __future__ import annotations

import sys


def task(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this environment."""
    return (sys.executable, "-m", module, *arguments)
