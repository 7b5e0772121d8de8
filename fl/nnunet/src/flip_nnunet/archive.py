"""Zips of results: equal files make equal archives."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment a zip can name."""
_COMPRESSED = (".pth", ".pt", ".gz", ".zip")


def zip_files(archive: Path, root: Path, files: Iterable[Path]) -> None:
    """Write the files, all below `root`, to `archive` in the order given, under their names relative to `root`."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in files:
            member = zipfile.ZipInfo(file.relative_to(root).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_STORED if file.suffix in _COMPRESSED else zipfile.ZIP_DEFLATED
            with file.open("rb") as source, zipped.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted."""
    return sorted(file for file in folder.rglob("*") if file.is_file())
