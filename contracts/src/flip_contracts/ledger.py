"""The form of the ledger: entries in a chain, Merkle trees over them, statements that a key signs. Pure; no I/O.

An entry is one line of JSON that begins with its position, counted from 1, and the hash of the entry
before it:

    {"position":7,"prev":"<64 hex digits>","actor":"user:...",...}

The line itself is the canonical form: it is kept, hashed, exported and checked as the bytes that it is, and is never
serialised again. Its hash is SHA-256(0x00 || line), which is what RFC 6962 (2.1) calls the hash of a leaf. So the
hashes that make the chain are also the leaves of the Merkle tree of each checkpoint: a node is SHA-256(0x01 || left ||
right), and the left part of n leaves holds the largest power of two below n.

A statement is JSON without blanks and with sorted keys; an Ed25519 key signs its bytes. It names its form and that
form's version, so that no statement can be taken for another kind.
"""

import re
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal, Self
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flip_contracts.base import ProjectId, Sha256

NOTHING = bytes(32)
"""Stands for the hash of the entry before the first, and for the digest of the checkpoint before the first."""
MOST_LEAVES = 65_536
"""The most entries that one checkpoint covers: what a verifier holds in memory."""

Position = Annotated[int, Field(ge=1)]
_LINE = re.compile(rb'\{"position":([1-9]\d{0,17}),"prev":"([0-9a-f]{64})",.+\}')


class Malformed(ValueError):
    """A line that hasn't the form it should have."""


# --- the chain ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: where it stands, its line, the line's hash as it was told."""

    position: int
    line: bytes
    hash: bytes

    @property
    def sound(self) -> bool:
        """Whether the line has the hash that was told."""
        return hash_of(self.line) == self.hash

    @property
    def prev(self) -> bytes:
        """The hash of the entry before, as the line names it."""
        found = _LINE.fullmatch(self.line)
        return bytes.fromhex(found[2].decode()) if found else b""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain."""

    position: int = 0
    hash: bytes = NOTHING


def hash_of(line: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\0" + line).digest()


def beginning(position: int, prev: bytes) -> bytes:
    """What the line of an entry begins with."""
    return b'{"position":%d,"prev":"%b",' % (position, hexlify(prev))


def chained(head: Head, facts: Iterable[bytes]) -> Iterator[Entry]:
    """The entries that follow `head`, one for each JSON object in `facts`, which must not be empty."""
    for each in facts:
        line = beginning(head.position + 1, head.hash) + each[1:]
        head = Head(head.position + 1, hash_of(line))
        yield Entry(head.position, line, head.hash)


# --- Merkle trees ---------------------------------------------------------------------------------------------------


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _level_above(level: Sequence[bytes]) -> list[bytes]:
    above = [sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return [*above, level[-1]] if len(level) % 2 else above


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of one or more leaves' hashes (RFC 6962, 2.1)."""
    level = leaves
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


class Tree:
    """The Merkle tree over the hashes of a checkpoint's entries."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [leaves]
        while len(self._levels[-1]) > 1:
            self._levels.append(_level_above(self._levels[-1]))

    def path(self, index: int) -> list[bytes]:
        """The audit path of a leaf, counted from 0: what `root_by` needs to come to the root (RFC 6962, 2.1.1)."""
        found: list[bytes] = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                found.append(level[sibling])
            index //= 2
        return found


def root_by(path: Iterable[bytes], leaf: bytes, index: int, size: int) -> bytes:
    """The root of a tree of `size` leaves to which `path` leads from its leaf `index`. Raises Malformed."""
    steps, found = iter(path), leaf
    while size > 1:
        if index ^ 1 < size:
            step = next(steps, None)
            if step is None:
                raise Malformed("the audit path is too short")
            found = _node(step, found) if index % 2 else _node(found, step)
        index, size = index // 2, (size + 1) // 2
    if next(steps, None) is not None:
        raise Malformed("the audit path is too long")
    return found


# --- what is signed -------------------------------------------------------------------------------------------------


def key_id(public_key: bytes) -> str:
    """How statements name a key: the SHA-256 of the 32 bytes of its public half."""
    return sha256(public_key).hexdigest()


class Statement(BaseModel):
    """What a key signs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Sha256
    """The id of the key that signs."""

    def encode(self) -> bytes:
        """The bytes that are signed."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, statement: bytes) -> Self:
        """Raises pydantic's ValidationError, naming each wrong field."""
        return cls.model_validate_json(statement)


class Checkpoint(Statement):
    """The entries `first` to `last` as they stood at `time`: the hash of the last, and the root of the tree over all.

    `previous` is the digest of the checkpoint before, so checkpoints are a chain of their own.
    """

    form: Literal["flip.ledger.checkpoint.v1"] = "flip.ledger.checkpoint.v1"
    number: Position
    first: Position
    last: Position
    head: Sha256
    root: Sha256
    time: AwareDatetime
    previous: Sha256


class Terms(BaseModel):
    """What narrows a search or an export; None and empty mean any. `until` is exclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project_id: ProjectId | None = None
    actor: str | None = None
    types: tuple[str, ...] = ()
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @property
    def narrow(self) -> bool:
        """Whether anything is left out."""
        return self != Terms()


class Manifest(Statement):
    """What an export holds: `entries` of the entries 1 to `last`, the last of them at `shown` (0 where there is none).

    `terms` is None where all of them are there. `checkpoint` is the digest of the last checkpoint. `members` are the
    SHA-256 of the export's other files by their names.
    """

    form: Literal["flip.ledger.export.v1"] = "flip.ledger.export.v1"
    terms: Terms | None
    last: Position
    entries: int
    shown: int
    checkpoints: Position
    checkpoint: Sha256
    made_at: AwareDatetime
    made_by: UUID
    members: dict[str, Sha256]


def digest_of(statement: bytes) -> str:
    """How a checkpoint is named by the next one and by a manifest."""
    return sha256(statement).hexdigest()


_SIGNED = re.compile(rb'\{"signature":"([0-9a-f]{128})","statement":(\{.*\})\}', re.DOTALL)


def signed(statement: bytes, signature: bytes) -> bytes:
    """A statement with its signature, as one line of JSON."""
    return b'{"signature":"%b","statement":%b}' % (hexlify(signature), statement)


def read_signed(line: bytes) -> tuple[bytes, bytes]:
    """The statement and its signature. Raises Malformed."""
    found = _SIGNED.fullmatch(line)
    if found is None:
        raise Malformed("this is no signed statement")
    return found[2], bytes.fromhex(found[1].decode())


# --- an export's files ----------------------------------------------------------------------------------------------

ENTRIES, SELECTION, CHECKPOINTS, KEYS, README, MANIFEST = (
    "entries.jsonl",
    "selection.jsonl",
    "checkpoints.jsonl",
    "keys.json",
    "README.txt",
    "manifest.json",
)
"""An export is a zip of these: ENTRIES where all are there, SELECTION where terms narrow it; then the others."""


def shown(entry: Entry) -> bytes:
    """An entry as a line of ENTRIES."""
    return b'{"hash":"%b","entry":%b}' % (hexlify(entry.hash), entry.line)


_SHOWN = re.compile(rb'\{"hash":"([0-9a-f]{64})","entry":(\{.+\})\}')
_SHOWN_LINE_AT = len(b'{"hash":"","entry":') + 64


def read_shown(line: bytes) -> Entry:
    """The entry of a line of ENTRIES; whether it is sound is for the caller to ask. Raises Malformed."""
    found = _SHOWN.fullmatch(line)
    entry = found and _LINE.fullmatch(found[2])
    if not found or not entry:
        raise Malformed("this shows no entry")
    return Entry(int(entry[1]), found[2], bytes.fromhex(found[1].decode()))


def follow(lines: Iterable[bytes], head: Head) -> tuple[list[bytes], bytes | None]:
    """The hashes of those lines of ENTRIES that are sound and follow `head` and one another; the first that doesn't.

    This is `read_shown` and `Entry.sound` for a million lines: what a line must begin with is made and compared.
    """
    hashes: list[bytes] = []
    position, prev = head.position + 1, hexlify(head.hash)
    for line in lines:
        found = sha256(b"\0" + line[_SHOWN_LINE_AT:-1]).digest()
        named = hexlify(found)
        begins = b'{"hash":"' + named + b'","entry":{"position":' + b"%d" % position + b',"prev":"' + prev + b'",'
        if not line.startswith(begins) or not line.endswith(b"}}"):
            return hashes, line
        hashes.append(found)
        position, prev = position + 1, named
    return hashes, None


@dataclass(frozen=True, slots=True)
class Proven:
    """A line of SELECTION: an entry, the position shown before it, and its audit path in a checkpoint's tree."""

    entry: Entry
    after: int
    checkpoint: int
    path: list[bytes]

    def leads_to(self, checkpoint: Checkpoint) -> bool:
        """Whether the path leads from the entry to the checkpoint's root."""
        if not checkpoint.first <= self.entry.position <= checkpoint.last:
            return False
        index, size = self.entry.position - checkpoint.first, checkpoint.last - checkpoint.first + 1
        try:
            return root_by(self.path, hash_of(self.entry.line), index, size).hex() == checkpoint.root
        except Malformed:
            return False


def proven(it: Proven) -> bytes:
    """A line of SELECTION."""
    path = b",".join(b'"%b"' % hexlify(each) for each in it.path)
    return b'{"after":%d,"checkpoint":%d,"path":[%b],%b' % (it.after, it.checkpoint, path, shown(it.entry)[1:])


_PROVEN = re.compile(
    rb'\{"after":(0|[1-9]\d{0,17}),"checkpoint":([1-9]\d{0,17}),"path":\[((?:"[0-9a-f]{64}"(?:,(?="))?)*)\],(.+)'
)


def read_proven(line: bytes) -> Proven:
    """The content of a line of SELECTION. Raises Malformed."""
    found = _PROVEN.fullmatch(line)
    if found is None:
        raise Malformed("this proves no entry")
    path = [bytes.fromhex(each.decode().strip('"')) for each in found[3].split(b",") if each]
    return Proven(read_shown(b"{" + found[4]), int(found[1]), int(found[2]), path)


class PublicKey(BaseModel):
    """A key of KEYS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Sha256
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The 32 bytes of an Ed25519 public key."""


class PublicKeys(BaseModel):
    """The content of KEYS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[PublicKey, ...]
