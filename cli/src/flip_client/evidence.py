"""An export of the ledger as a file: its members, its lines, its keys. What each means is `verify`'s to judge."""

import queue
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flip_contracts import ledger
from flip_contracts.ledger import PublicKeys
from pydantic import ValidationError

_CHUNK = 1 << 18
_CHUNKS_AHEAD = 4
_LONGEST_LINE = 32 << 20
_LARGEST_SMALL_MEMBER = 4 << 20
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a zip raises where bytes of it were changed or cut off."""


class NotAnExport(Exception):
    """The file can't be judged: it is no export, or one of another version, or it was cut short."""


class Broken(Exception):
    """The export isn't what was signed.

    `first` is the position of the first entry that is wrong; where that can't be told, it lies between `first` and
    `last`. Both are None where no entry but another part of the export is wrong.
    """

    def __init__(self, what: str, first: int | None = None, last: int | None = None) -> None:
        super().__init__(what)
        self.first = first
        self.last = first if last is None else last


@contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """The export. Raises NotAnExport, also for damage that is met while the block reads, and OSError."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (*_DAMAGE, NotImplementedError, RuntimeError) as error:
        raise NotAnExport(f"the file was cut short or damaged, or is no export: {error}") from error


def is_complete(archive: zipfile.ZipFile) -> bool:
    """Whether the export shows every entry, by the members it has. Raises Broken and NotAnExport."""
    names = [member.filename for member in archive.infolist()]
    if ledger.MANIFEST not in names:
        raise NotAnExport(f"there is no {ledger.MANIFEST} in it: this is no export of a ledger")
    for kind in (ledger.ENTRIES, ledger.SELECTION):
        if names == [kind, ledger.CHECKPOINTS, ledger.KEYS, ledger.README, ledger.MANIFEST]:
            return kind == ledger.ENTRIES
    raise Broken(f"files were taken out of the export, put into it, or reordered; it holds {', '.join(names[:9])}")


def read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member that fits in memory. Raises NotAnExport."""
    with archive.open(name) as member:
        content = member.read(_LARGEST_SMALL_MEMBER + 1)
    if len(content) > _LARGEST_SMALL_MEMBER:
        raise NotAnExport(f"{name} is larger than any that an export holds")
    return content


class Lines(Iterator[bytes]):
    """The lines of a member."""

    def __init__(self, name: str, chunks: Iterator[bytes]) -> None:
        self.name = name
        self.unended = False
        """Whether something stands behind the last line end; it is iterated as the last line."""
        self._hash = sha256()
        self._lines = chain.from_iterable(self._batches(chunks))

    def __next__(self) -> bytes:
        return next(self._lines)

    def __iter__(self) -> Iterator[bytes]:
        return self._lines

    @property
    def digest(self) -> str:
        """The SHA-256 of the member, as far as it was iterated."""
        return self._hash.hexdigest()

    def _batches(self, chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
        rest = b""
        for chunk in chunks:
            self._hash.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                raise NotAnExport(f"{self.name} holds a line longer than any that the ledger writes")
            yield lines
        if rest:
            self.unended = True
            yield [rest]


def undamaged(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines up to where the file is damaged."""
    try:
        yield from lines
    except _DAMAGE:
        return


@contextmanager
def lines_of(archive: zipfile.ZipFile, name: str) -> Iterator[Lines]:
    """The lines of a member, while the block lasts."""
    with archive.open(name) as member:
        chunks = iter(partial(member.read, _CHUNK), b"")
        if archive.getinfo(name).file_size <= _CHUNK:
            yield Lines(name, chunks)
            return
        with _ahead(chunks) as read:
            yield Lines(name, read)


class _Ahead:
    """Chunks that a thread of its own reads and inflates, while those before are checked."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._read: queue.Queue[bytes | Exception] = queue.Queue(_CHUNKS_AHEAD)
        self._closed = False

    def work(self) -> None:
        """Read to the end, or until it is closed; runs in the thread."""
        try:
            for chunk in self._chunks:
                self._put(chunk)
                if self._closed:
                    return
            self._put(b"")
        except Exception as error:  # raised again where the chunks are taken
            self._put(error)

    def _put(self, item: bytes | Exception) -> None:
        while not self._closed:
            try:
                return self._read.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def taken(self) -> Iterator[bytes]:
        """The chunks as they come."""
        while item := self._read.get():
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """Read no more."""
        self._closed = True


@contextmanager
def _ahead(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    ahead = _Ahead(chunks)
    thread = threading.Thread(target=ahead.work, name="reads an export")
    thread.start()
    try:
        yield ahead.taken()
    finally:
        ahead.close()
        thread.join()


# --- keys -----------------------------------------------------------------------------------------------------------


def read_public_keys(pem: bytes) -> list[Ed25519PublicKey]:
    """The Ed25519 public keys of a PEM file. Raises ValueError where there is none, or another kind of key."""
    keys: list[Ed25519PublicKey] = []
    for block in _PEM.findall(pem):
        try:
            key = load_pem_public_key(block)
        except UnsupportedAlgorithm as error:
            raise ValueError("the file holds a key of an unknown kind") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("the file holds a key that is no Ed25519 key")
        keys.append(key)
    if not keys:
        raise ValueError("the file holds no public key in PEM")
    return keys


class Keys:
    """The keys that may have signed, and those that did."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = {ledger.key_id(key.public_bytes_raw()): key for key in keys}
        self.used: set[str] = set()

    @classmethod
    def brought_by(cls, content: bytes) -> "Keys":
        """The keys that an export brings itself. Raises Broken."""
        try:
            found = PublicKeys.model_validate_json(content).keys
        except ValidationError as error:
            raise Broken(f"{ledger.KEYS} was changed: it isn't a list of keys") from error
        if any(each.id != ledger.key_id(bytes.fromhex(each.public_key)) for each in found):
            raise Broken(f"{ledger.KEYS} was changed: a key isn't the one it is called")
        return cls([Ed25519PublicKey.from_public_bytes(bytes.fromhex(each.public_key)) for each in found])

    def check(self, key_id: str, statement: bytes, signature: bytes) -> str | None:
        """What is wrong with the signature; None where nothing is."""
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(sorted(each[:16] for each in self._keys)) or "none"
            return f"it is signed with the key {key_id[:16]}, but the keys to trust are: {known}"
        try:
            key.verify(signature, statement)
        except InvalidSignature:
            return f"it was changed: it isn't what the key {key_id[:16]} has signed"
        self.used.add(key_id)
        return None
