"""Fetches the public brain scan and its regions: Debian's `mricron-data`, installed or unpacked here."""

import subprocess
import tempfile
from pathlib import Path

PACKAGE = "mricron-data"
_TEMPLATES = Path("usr/share/mricron/templates")
_FILES = ("ch2.nii.gz", "aal.nii.gz", "aal.nii.txt")


class SourceError(RuntimeError):
    """The Debian package cannot be had."""


def templates(parts: Path, system: Path = Path("/")) -> Path:
    """The folder with `ch2.nii.gz` and `aal.nii.gz`; unpacks the package under `parts` unless `system` has it.

    Raises:
        SourceError: the package can neither be found nor fetched.
    """
    unpacked = parts / PACKAGE
    for root in (system, unpacked):
        if _complete(root):
            return root / _TEMPLATES
    _unpack(unpacked)
    if not _complete(unpacked):
        raise SourceError(f"{PACKAGE} has no {', '.join(_FILES)} under {_TEMPLATES}")
    return unpacked / _TEMPLATES


def _complete(root: Path) -> bool:
    return all((root / _TEMPLATES / name).is_file() for name in _FILES)


def _unpack(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        _run("apt-get", "download", PACKAGE, within=scratch)
        (archive,) = Path(scratch).glob("*.deb")
        tree = Path(scratch, "tree")
        _run("dpkg-deb", "-x", str(archive), str(tree), within=scratch)
        move_into_place(tree, target)


def move_into_place(made: Path, target: Path) -> None:
    """Rename a finished folder to its place; another process that was faster is as good."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _run(*command: str, within: str) -> None:
    done = subprocess.run(command, cwd=within, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise SourceError(
            f"{' '.join(command[:2])} failed: {reason}. Run `apt-get update`, or install the Debian package {PACKAGE}."
        )
