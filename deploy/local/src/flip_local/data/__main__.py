"""`python -m flip_local.data --trust KCH --parts DIR --out DIR`: load one Trust's real input; harmless to repeat."""

from pathlib import Path
from typing import Annotated

import typer

from flip_local.data.load import seed
from flip_local.data.omop import ForeignSchemaError
from flip_local.data.pacs import PacsError
from flip_local.data.source import SourceError

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    trust: Annotated[str, typer.Option(help="KCH or UCLH.")],
    parts: Annotated[Path, typer.Option(help="Folder of downloads and of what was made before.")],
    out: Annotated[Path, typer.Option(help="The Trust's folder, for the operator's labels and the held-out cases.")],
    omop_owner_dsn: Annotated[str, typer.Option(envvar="FLIP_OMOP_OWNER_DSN", help="URL of the OMOP database.")],
    pacs_url: Annotated[str, typer.Option(envvar="FLIP_PACS_URL", help="Root of the Trust's Orthanc.")],
    pacs_user: Annotated[str, typer.Option(envvar="FLIP_PACS_USER", help="Who may store and delete there.")],
    pacs_password: Annotated[str, typer.Option(envvar="FLIP_PACS_PASSWORD", help="Better by the environment.")],
) -> None:
    """Make the Trust's synthetic patients and load them where something is missing."""
    try:
        done = seed(
            trust,
            parts=parts,
            out=out,
            omop_owner_dsn=omop_owner_dsn,
            pacs_url=pacs_url,
            pacs_user=pacs_user,
            pacs_password=pacs_password,
        )
    except (ValueError, SourceError, ForeignSchemaError, PacsError) as refusal:
        typer.echo(f"{trust}: {refusal}", err=True)
        raise typer.Exit(1) from refusal
    typer.echo(
        f"{trust}: OMOP {'loaded' if done.omop_replaced else 'as it was'}, "
        f"{done.images_stored} images stored, {done.files_written} files written"
    )


app()
