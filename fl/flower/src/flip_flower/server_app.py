"""What Flower starts at the hub for a run: the ServerApp of every run."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flip_flower.controller import run_attempt
from flip_flower.job import ATTEMPT_FILE, read_attempt

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the attempt that the run's configuration names."""
    run_attempt(grid, read_attempt(Path(str(context.run_config[ATTEMPT_FILE]))))
