"""The seal of a run's results: what was done, with what, and the digest of every file that came of it.

    python -m flip_nnunet.seal RESULTS.zip

says whether every file is as it was sealed, and the seal's own digest, which the platform's ledger has. What a seal
holds is listed in `docs/train-nnunet.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flip_nnunet.archive import files_below, zip_files
from flip_nnunet.files import file_digest

SEAL_FILE = "seal.json"


class SealBroken(Exception):
    """An archive is not what was sealed; the message names every file that differs."""

    code = "seal-broken"


@dataclass(frozen=True, slots=True)
class Results:
    """Results as they are given away: a zip, its SHA-256 and that of the seal in it (both hex)."""

    archive: Path
    sha256: str
    seal_sha256: str


def seal(folder: Path, place: Path, record: dict[str, Any]) -> Results:
    """Write `place/seal.json`, `place` in `folder` or the same, and zip `folder` beside itself as `FOLDER.zip`.

    The seal is `record` with the SHA-256 of every other file in `folder`, by its name in the zip, added to
    `record["digests"]` as `files`.
    """
    files = files_below(folder)
    by_name = {file.relative_to(folder.parent).as_posix(): file_digest(file) for file in files}
    sealed = {**record, "digests": {**record.get("digests", {}), "files": by_name}}
    seal_file = place / SEAL_FILE
    seal_file.write_text(json.dumps(sealed, indent=1, sort_keys=True), "utf-8")
    archive = folder.with_suffix(".zip")
    zip_files(archive, folder.parent, [*files, seal_file])
    return Results(archive, file_digest(archive), file_digest(seal_file))


def check(archive: Path) -> tuple[dict[str, Any], str]:
    """The seal of a zip whose files are all as they were sealed, and the seal's SHA-256. Raises `SealBroken`."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            return _check(zipped)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SealBroken(f"the archive or its seal can't be read: {type(error).__name__}") from error


def _check(zipped: zipfile.ZipFile) -> tuple[dict[str, Any], str]:
    names = zipped.namelist()
    seals = [name for name in names if PurePosixPath(name).name == SEAL_FILE]
    if len(seals) != 1:
        raise SealBroken(f"{len(seals)} files are called {SEAL_FILE}")
    text = zipped.read(seals[0])
    sealed = json.loads(text)
    expected: dict[str, str] = sealed["digests"]["files"]
    found = {name: _digest(zipped, name) for name in names if name != seals[0]}
    faults = [
        *(f"{name} is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name} was not sealed" for name in sorted(found.keys() - expected.keys())),
        *(f"{name} was changed" for name in sorted(found) if expected.get(name, found[name]) != found[name]),
    ]
    if len(names) > len(found) + 1:
        faults.append("a name occurs twice")
    if faults:
        raise SealBroken("; ".join(faults))
    return sealed, hashlib.sha256(text).hexdigest()


def _digest(zipped: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with zipped.open(name) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flip_nnunet.seal", description="Check the seal of results.")
    parser.add_argument("archive", type=Path, help="the zip with a run's results")
    try:
        sealed, digest = check(parser.parse_args().archive)
    except SealBroken as broken:
        sys.exit(str(broken))
    sys.stdout.write(f"{len(sealed['digests']['files'])} files are as they were sealed; the seal is {digest}\n")


if __name__ == "__main__":
    main()
