"""`flip files`: the files of a researcher's own app."""

from pathlib import Path
from typing import Annotated

import typer

from flip_client.hub import app_files
from flip_client.terminal import logged_in, out, show_table

files = typer.Typer(no_args_is_help=True, help="The files of a model: your own app.")


@files.command("list")
def list_files(model_id: str) -> None:
    """The model's files as their scans left them, and those that it needs."""
    with logged_in() as hub:
        view = hub.files(model_id)
        show_table(view["files"], "path", "status", "size_bytes", "reason", "detail")
        for required in view["required"]:
            if not required["present"]:
                out.print(f"missing: {required['path']}")


@files.command()
def put(
    model_id: str,
    folder: Annotated[Path, typer.Argument(exists=True, help="An app's folder, or one file.")],
) -> None:
    """Upload an app's folder, or one file by its name. A file of the same path is replaced; others stay."""
    with logged_in() as hub:
        names = app_files(folder) if folder.is_dir() else [folder.name]
        for name in names:
            sent = hub.put_file(model_id, name, folder / name if folder.is_dir() else folder)
            out.print(f"{sent['path']}: {sent['status']}")


@files.command()
def get(model_id: str, path: str, to: Path = Path()) -> None:
    """Download a file that its scan has accepted."""
    with logged_in() as hub:
        out.print(str(hub.download_file(model_id, path, to)))


@files.command()
def rm(model_id: str, path: str) -> None:
    """Take a file out of the model. Runs that were started with it keep it."""
    with logged_in() as hub:
        hub.remove_file(model_id, path)
