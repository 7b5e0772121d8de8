"""The terminal: the session that is kept between commands, and how answers are shown."""

import json
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from flip_client.hub import Hub, View

out = Console()


def _kept_in() -> Path:
    folder = (
        os.environ.get("FLIP_CONFIG") or Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "flip"
    )
    return Path(folder) / "session.json"


def keep(url: str, ca: Path | None, hub: Hub) -> None:
    """Keep the session for the next command, for the eyes of this user only."""
    file = _kept_in()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(json.dumps({"url": url, "ca": str(ca) if ca else None, **hub.session.kept()}))


@contextmanager
def logged_in() -> Generator[Hub]:
    """The hub as whoever logged in last; what the session learns is kept for the next command."""
    file = _kept_in()
    if not file.exists():
        raise typer.BadParameter("log in first: flip login --url https://...")
    kept = json.loads(file.read_text())
    ca = Path(kept["ca"]) if kept["ca"] else None
    hub = Hub(kept["url"], ca)
    hub.session.resume(kept)
    try:
        yield hub
    finally:
        keep(kept["url"], ca, hub)
        hub.session.close()


def show_view(view: Any) -> None:
    """What a service answered, as JSON."""
    out.print_json(data=view)


def show_table(rows: Iterable[View], *columns: str) -> None:
    """These columns of some rows."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    out.print(table)
