"""`flip audit`: search the ledger, copy it, and check a copy without any hub."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flip_client.evidence import Broken, NotAnExport, read_public_keys
from flip_client.story import told
from flip_client.terminal import logged_in, out
from flip_client.verify import verify

audit = typer.Typer(invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="Print what the hub answers, as JSON.")]
Project = Annotated[str | None, typer.Option(help="Only this project.")]
Actor = Annotated[str | None, typer.Option(help="Only what this actor did, such as user:<id>.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Only messages of this type; may be repeated.")]
Since = Annotated[datetime | None, typer.Option()]
Until = Annotated[datetime | None, typer.Option(help="Up to this moment, not with it.")]


@audit.callback()
def search(
    context: typer.Context,
    project: Project = None,
    actor: Actor = None,
    types: Types = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Everything that was said, in order, from the ledger. Its commands copy and check it."""
    terms = _terms(project, actor, types, since, until)
    if context.invoked_subcommand is not None:
        if any(terms.values()):
            raise typer.BadParameter(
                f"what narrows an export stands behind it: {context.invoked_subcommand} FILE --..."
            )
        return
    with logged_in() as hub:
        for entry in hub.ledger(**terms):
            print(json.dumps(entry) if as_json else told(entry))


@audit.command()
def export(
    file: Path,
    project: Project = None,
    actor: Actor = None,
    types: Types = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Copy the ledger, or the entries that fit, into FILE: a zip that can be checked anywhere. That is recorded."""
    with logged_in() as hub:
        hub.export_ledger(file, **_terms(project, actor, types, since, until))
    out.print(str(file))


@audit.command()
def keys(file: Path) -> None:
    """Write the public keys that sign the ledger into FILE, in PEM. Keep it apart from the exports it is to check."""
    with logged_in() as hub:
        hub.ledger_keys(file)
    out.print(str(file))


@audit.command("verify")
def verify_export(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The public keys to trust, in PEM.")
    ] = None,
) -> None:
    """Check an export without any hub: 0 if it is what was signed; otherwise the first wrong entry is named."""
    try:
        verified = verify(file, read_public_keys(key.read_bytes()) if key else ())
    except (Broken, NotAnExport, ValueError) as wrong:
        print(f"refused: {wrong}", file=sys.stderr)
        raise typer.Exit(1) from wrong
    it = verified.manifest
    what = "every entry" if it.terms is None else f"{it.entries} entries that fit {it.terms.model_dump_json()}"
    print(f"whole and unchanged: {what} up to {it.last}, {it.checkpoints} checkpoints, made {it.made_at.isoformat()}")
    for each in verified.keys:
        print(f"signed with the key {each}")
    if not verified.pinned:
        print("Nobody vouches for this key but the file itself: give --key, or compare it with the one you know.")


def _terms(
    project: str | None, actor: str | None, types: list[str] | None, since: datetime | None, until: datetime | None
) -> dict[str, Any]:
    return {"project_id": project, "actor": actor, "type": types, "since": _iso(since), "until": _iso(until)}


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone().isoformat() if moment else None
