"""Random passwords and tokens, made once per stack and kept in files that only their owner reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from flip_local.layout import Layout

_ALPHABET_BYTES = 24


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all; an existing file stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()


class Credentials:
    """The secrets of one stack. Each is made when it is first asked for and stays the same from then on."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.secrets

    def file(self, name: str) -> Path:
        """The file with the secret called `name`, URL-safe text without a line end."""
        path = self._folder / name
        write_private(path, secrets.token_urlsafe(_ALPHABET_BYTES).encode())
        return path

    def _text(self, name: str) -> str:
        return self.file(name).read_text()

    def postgres(self, cluster: str, role: str) -> str:
        """The password of a role of the hub's (`"hub"`) or a Trust's cluster."""
        return self._text(f"postgres-{cluster}-{role}")

    @property
    def s3(self) -> tuple[str, str]:
        """Access key and secret key of the object store."""
        return self._text("s3-access-key"), self._text("s3-secret-key")

    def orthanc(self, server: str, trust: str) -> tuple[str, str]:
        """User and password of a Trust's `"pacs"` or `"archive"`."""
        return "flip", self._text(f"orthanc-{server}-{trust}")

    @property
    def bootstrap_password(self) -> str:
        """The first admin's password; it satisfies the platform's own rules for passwords."""
        path = self._folder / "bootstrap-password"
        write_private(path, f"aA1!{secrets.token_urlsafe(_ALPHABET_BYTES)}".encode())
        return path.read_text()

    def operator_token_file(self, trust: str) -> Path:
        """The file with the token of a Trust's operator."""
        return self.file(f"operator-{trust}")

    def pseudonym_key_file(self, trust: str) -> Path:
        """The file with the key of a Trust's pseudonyms, identifiers and date shifts."""
        return self.file(f"pseudonym-{trust}")
