"""An export as a file that verifies itself: a zip, written from front to back a page at a time, signed at its end."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Protocol, cast
from uuid import UUID

from flip_contracts import ledger
from flip_contracts.ledger import Checkpoint, Entry, Manifest, Proven, PublicKeys, Terms, Tree

from flip_audit.keys import SigningKey

README = files("flip_audit").joinpath("export-readme.txt").read_bytes()
_FAST = 1
"""zlib's level: lines are so much alike that more effort saves little."""

Write = Callable[[bytes], None]


class Source(Protocol):
    """Where an export comes from, page by page; an empty page is the end."""

    async def entries(self, terms: Terms, after: int, until: int) -> Sequence[Entry]: ...
    async def checkpoints(self, after: int, until: int) -> Sequence[tuple[bytes, bytes]]: ...
    async def tree_over(self, position: int) -> tuple[Checkpoint, Tree]: ...
    async def keys(self) -> PublicKeys: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What is exported: of the entries that `until` and the checkpoints before it cover, those that fit the terms."""

    terms: Terms
    until: Checkpoint
    made_by: UUID
    made_at: datetime


async def bundle(source: Source, key: SigningKey, asked: Asked) -> AsyncIterator[bytes]:
    """The export's bytes. What is held of it at any time is one page, and the tree of one checkpoint."""
    archive = _Archive()
    narrowed = asked.terms.narrow
    count, at = 0, 0
    with archive.member(ledger.SELECTION if narrowed else ledger.ENTRIES) as write:
        proofs = _Proofs(source)
        while page := await source.entries(asked.terms, at, asked.until.last):
            lines = await proofs.shown(page, at) if narrowed else map(ledger.shown, page)
            count, at = count + len(page), page[-1].position
            await asyncio.to_thread(write, b"".join(line + b"\n" for line in lines))
            yield archive.taken()
    with archive.member(ledger.CHECKPOINTS) as write:
        number = 0
        while signed := await source.checkpoints(number, asked.until.number):
            number += len(signed)
            write(b"".join(ledger.signed(*each) + b"\n" for each in signed))
            yield archive.taken()
    with archive.member(ledger.KEYS) as write:
        write((await source.keys()).model_dump_json().encode())
    with archive.member(ledger.README) as write:
        write(README)
    manifest = Manifest(
        key=key.id,
        terms=asked.terms if narrowed else None,
        last=asked.until.last,
        entries=count,
        shown=at,
        checkpoints=asked.until.number,
        checkpoint=ledger.digest_of(asked.until.encode()),
        made_at=asked.made_at,
        made_by=asked.made_by,
        members=dict(archive.digests),
    )
    with archive.member(ledger.MANIFEST) as write:
        write(ledger.signed(*key.sign(manifest)))
    archive.close()
    yield archive.taken()


class _Proofs:
    """Audit paths for entries that come in the order of the chain."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._covered: tuple[Checkpoint, Tree] | None = None

    async def shown(self, page: Sequence[Entry], after: int) -> list[bytes]:
        """The page's lines with their proofs; `after` is the position shown before it."""
        lines: list[bytes] = []
        for entry in page:
            checkpoint, tree = await self._over(entry.position)
            path = tree.path(entry.position - checkpoint.first)
            lines.append(ledger.proven(Proven(entry, after, checkpoint.number, path)))
            after = entry.position
        return lines

    async def _over(self, position: int) -> tuple[Checkpoint, Tree]:
        if self._covered is None or position > self._covered[0].last:
            self._covered = await self._source.tree_over(position)
        return self._covered


class _Archive:
    """A zip that nobody has to hold whole."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self._sink = _Sink()
        sink = cast("zipfile._ZipWritable", self._sink)
        self._zip = zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST)

    @contextmanager
    def member(self, name: str) -> Iterator[Write]:
        """A member of the zip, written in parts and digested."""
        digest = sha256()
        with self._zip.open(name, "w", force_zip64=True) as member:

            def write(part: bytes) -> None:
                digest.update(part)
                member.write(part)

            yield write
        self.digests[name] = digest.hexdigest()

    def close(self) -> None:
        """Write what stands at the end of a zip."""
        self._zip.close()

    def taken(self) -> bytes:
        """What was written since this was last asked."""
        return self._sink.taken()


class _Sink:
    """A file that can't be gone back in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes, /) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
