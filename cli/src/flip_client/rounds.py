"""`flip rounds`: the weights after each round of a run."""

from pathlib import Path
from typing import Annotated

import typer

from flip_client.terminal import logged_in, out, show_table

rounds = typer.Typer(no_args_is_help=True, help="The weights after each round of a run. Rounds count from 0.")


@rounds.command("list")
def list_rounds(run_id: str) -> None:
    """The completed rounds, the best of them, and until when each is kept; none: for good, or the run is under way."""
    with logged_in() as hub:
        show_table(hub.rounds(run_id), "round", "at", "size_bytes", "score", "best", "deleted", "kept_until")


@rounds.command()
def get(run_id: str, number: Annotated[int, typer.Argument(min=0)], to: Path = Path()) -> None:
    """Download the weights after a round, as a NumPy archive."""
    with logged_in() as hub:
        out.print(str(hub.download_round(run_id, number, to)))
