"""Writes files so that a reader, or a crash, meets the old content or the new one, never a part; reads digests; tells
a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NEXT_TO_NOTHING = 2**20
"""With less than this left (bytes) whatever failed at writing failed for want of space."""


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Give `path` this content in one step; a file that has it already is not touched. `private` means mode 0600."""
    if path.is_file() and path.read_bytes() == content:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600 if private else 0o644)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def replace_json(path: Path, value: Any) -> None:
    """`replace_file` with `value` as indented JSON."""
    replace_file(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_disk_full(error: Exception, folder: Path) -> bool:
    """Whether `error` came of a full disk. PyTorch only says that it could not write: then the disk is asked."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free < _NEXT_TO_NOTHING
