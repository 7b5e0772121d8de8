"""Check an export of the ledger: offline, in constant memory, naming the first entry that is wrong.

Whoever holds the file may have changed anything in it. What they can't make without the key are the signatures of the
checkpoints and of the manifest. So every entry is followed along the chain to a signed checkpoint, or, where only some
entries are shown, along its audit path to the root of one; and every byte of the export to the manifest's digests.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import IO

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flip_contracts import ledger
from flip_contracts.ledger import MOST_LEAVES, NOTHING, Checkpoint, Entry, Head, Malformed, Manifest, Proven
from pydantic import ValidationError

from flip_client.evidence import Broken, Keys, Lines, NotAnExport, is_complete, lines_of, opened, read_small, undamaged

_BEGINNING = 200
"""No entry's line begins further behind the begin of the line that shows it, with position and hash before."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An export that is what was signed. `pinned` says whether the caller trusted these keys before."""

    manifest: Manifest
    keys: tuple[str, ...]
    pinned: bool


def verify(file: Path | IO[bytes], trusted: Sequence[Ed25519PublicKey] = ()) -> Verified:
    """Check an export from its first byte to its last.

    Without a `trusted` key it is checked against the keys that it brings itself: that shows damage and changes, but not
    an export that somebody has made anew as a whole. Raises Broken, NotAnExport and OSError.
    """
    with opened(file) as archive:
        complete = is_complete(archive)
        signed = read_small(archive, ledger.MANIFEST)
        manifest = _manifest(signed)
        keys = Keys(trusted) if trusted else Keys.brought_by(read_small(archive, ledger.KEYS))
        shown = ledger.ENTRIES if complete else ledger.SELECTION
        with lines_of(archive, ledger.CHECKPOINTS) as signatures, lines_of(archive, shown) as entries:
            checkpoints = _Checkpoints(signatures, keys)
            if complete:
                last = _check_all(entries, checkpoints)
            else:
                last = _check_selection(entries, checkpoints, manifest.shown)
            _check_manifest(signed, manifest, keys)
            _check_ends(manifest, checkpoints, entries, last, complete=complete)
            digests = {each.name: each.digest for each in (signatures, entries)}
        _check_members(archive, manifest, digests)
        return Verified(manifest, tuple(sorted(keys.used)), pinned=bool(trusted))


# --- every entry: along the chain -----------------------------------------------------------------------------------


def _check_all(entries: Lines, checkpoints: "_Checkpoints") -> int:
    """Follow the chain from checkpoint to checkpoint; the position of the last entry."""
    head = Head()
    for checkpoint in checkpoints:
        head = _follow(iter(entries), checkpoint, head)
    return head.position


def _follow(lines: Iterator[bytes], checkpoint: Checkpoint, head: Head) -> Head:
    """Follow the entries of one checkpoint behind `head` to its last."""
    hashes, wrong = ledger.follow(islice(lines, checkpoint.last - head.position), head)
    position = head.position + len(hashes)
    if wrong is not None:
        *_, before, prev = (b"", head.hash, *hashes)
        raise _first_wrong(wrong, lines, _Place(position + 1, prev, before, checkpoint.first))
    if position < checkpoint.last:
        raise Broken(f"entry {position + 1} is missing: the file ends behind entry {position}", position + 1)
    if hashes[-1].hex() != checkpoint.head or ledger.root_of(hashes).hex() != checkpoint.root:
        raise Broken(
            f"one of the entries {checkpoint.first} to {checkpoint.last} was changed, and the hashes made anew:"
            f" they are not what checkpoint {checkpoint.number} has signed",
            checkpoint.first,
            checkpoint.last,
        )
    return Head(position, hashes[-1])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry belongs: behind the hashes `before` and `prev`; the last signed entry stands before `unsigned`."""

    position: int
    prev: bytes
    before: bytes
    unsigned: int

    def holds(self, line: bytes) -> bool:
        """Whether the line shows the entry that belongs here."""
        if ledger.beginning(self.position, self.prev) not in line[:_BEGINNING]:
            return False
        entry = _read(line)
        return entry is not None and entry.sound


def _first_wrong(line: bytes, behind: Iterator[bytes], place: _Place) -> Broken:
    """Say why `line` can't be the entry at `place`."""
    position, entry = place.position, _read(line)
    if entry is not None and not entry.sound:
        entry = None
    if any(map(place.holds, undamaged(behind))):
        return Broken(_misplaced(entry.position if entry else None, position), position)
    if entry is None:
        what = f"entry {position} was changed: what stands there doesn't have the hash it is shown with"
        return Broken(what, position)
    if entry.position == position - 1 and entry.prev == place.before:
        return Broken(f"two entries stand at position {position - 1}: one of them was inserted", position - 1)
    if entry.position != position:
        what = f"entry {position} is missing: entry {entry.position} stands behind entry {position - 1}"
        return Broken(what, position)
    if position == place.unsigned:
        what = f"entry {position} was changed, and its hash made anew: it doesn't follow what was signed"
        return Broken(what, position)
    return Broken(
        f"the chain breaks between the entries {position - 1} and {position}: one of the entries {place.unsigned} to"
        f" {position} was changed, and hashes made anew",
        place.unsigned,
        position,
    )


def _read(line: bytes) -> Entry | None:
    try:
        return ledger.read_shown(line)
    except Malformed:
        return None


def _misplaced(at: int | None, position: int) -> str:
    if at is None or at == position:
        return f"something that is no entry of this ledger was inserted in front of entry {position}"
    if at < position:
        return f"entry {at} was inserted a second time, in front of entry {position}"
    return f"the entries were reordered: entry {at} stands in front of entry {position}"


# --- some entries: each by its audit path ---------------------------------------------------------------------------


def _check_selection(entries: Lines, checkpoints: "_Checkpoints", until: int) -> int:
    """Follow each entry to a checkpoint; the position of the last entry. The manifest says that this is `until`."""
    at, ahead = 0, iter(checkpoints)
    checkpoint: Checkpoint | None = None
    for line in entries:
        proven = _read_proven(line)
        if proven is None or proven.after != at or proven.entry.position <= at:
            raise _first_wrong_selected(proven, entries, at, until)
        while checkpoint is None or checkpoint.number < proven.checkpoint:
            checkpoint = next(ahead, None)
            if checkpoint is None:
                position = _told_by_next(entries, until)
                raise Broken(f"entry {position} was changed: the checkpoint that it names isn't there", position)
        if not proven.entry.sound or not proven.leads_to(checkpoint):
            position = _told_by_next(entries, until)
            raise Broken(f"entry {position} was changed: it isn't what was signed", position)
        at = proven.entry.position
    for _ in ahead:
        pass
    return at


def _first_wrong_selected(line: Proven | None, behind: Iterator[bytes], at: int, until: int) -> Broken:
    """Say why `line` can't follow the entry at `at`."""
    readable = filter(None, map(_read_proven, undamaged(behind)))
    behind_it = next(readable, None)
    following = next((each for each in chain(filter(None, [behind_it]), readable) if each.after == at), None)
    if following is not None:
        there, here = following.entry.position, line.entry.position if line else 0
        if here > there:
            what = f"the entries were reordered: entry {here} stands in front of entry {there}"
        else:
            what = f"something that wasn't exported was inserted in front of entry {there}"
        return Broken(what, there)
    if line is not None and line.after > at:
        return Broken(f"entry {line.after} is missing, or more than one behind entry {at}", at + 1, line.after)
    position = behind_it.after if behind_it else until
    return Broken(f"entry {position} was changed: what stands there isn't what was exported", position)


def _told_by_next(behind: Iterator[bytes], until: int) -> int:
    """The position of an entry that can't be believed itself: the next one names it as the one before."""
    line = next(filter(None, map(_read_proven, undamaged(behind))), None)
    return line.after if line else until


def _read_proven(line: bytes) -> Proven | None:
    try:
        return ledger.read_proven(line)
    except Malformed:
        return None


# --- checkpoints and manifest ---------------------------------------------------------------------------------------


class _Checkpoints(Iterator[Checkpoint]):
    """The checkpoints in their order, each checked against its key and the one before."""

    def __init__(self, lines: Lines, keys: Keys) -> None:
        self._lines = lines
        self._keys = keys
        self.count = 0
        self.last = 0
        self.digest = NOTHING.hex()

    def __next__(self) -> Checkpoint:
        line = next(self._lines)
        number, first = self.count + 1, self.last + 1
        try:
            statement, signature = ledger.read_signed(line)
            checkpoint = Checkpoint.decode(statement)
        except (Malformed, ValidationError) as error:
            raise self._broken(f"checkpoint {number} was changed: what stands there is no checkpoint") from error
        if wrong := self._keys.check(checkpoint.key, statement, signature):
            raise self._broken(f"checkpoint {number}: {wrong}")
        if checkpoint.number != number:
            raise self._broken(
                f"checkpoint {number} is missing or out of place: checkpoint {checkpoint.number} is there"
            )
        if checkpoint.previous != self.digest or checkpoint.first != first:
            raise self._broken(f"checkpoint {number} doesn't follow the one before: it is of another ledger")
        if not 0 <= checkpoint.last - first < MOST_LEAVES:
            raise self._broken(f"checkpoint {number} covers more entries than any checkpoint, or none")
        self.count, self.last, self.digest = number, checkpoint.last, ledger.digest_of(statement)
        return checkpoint

    def _broken(self, what: str) -> Broken:
        return Broken(f"{what}; the entries from {self.last + 1} on can't be followed", self.last + 1)


def _manifest(signed: bytes) -> Manifest:
    """The manifest, its signature not looked at. Raises Broken and NotAnExport."""
    known = str(Manifest.model_fields["form"].default)
    try:
        statement, _ = ledger.read_signed(signed)
        form = orjson.loads(statement).get("form")
        if form != known and str(form).startswith("flip.ledger.export."):
            raise NotAnExport(f"the export has the version {str(form)[:40]!r}; this program knows {known!r}")
        return Manifest.decode(statement)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) or "all of it" for each in error.errors())
        raise Broken(f"the manifest was changed; wrong are: {fields}") from error
    except (Malformed, orjson.JSONDecodeError) as error:
        raise Broken("the manifest was changed: it is no signed statement") from error


def _check_manifest(signed: bytes, manifest: Manifest, keys: Keys) -> None:
    statement, signature = ledger.read_signed(signed)
    if wrong := keys.check(manifest.key, statement, signature):
        raise Broken(f"the manifest: {wrong}")


def _check_ends(manifest: Manifest, checkpoints: _Checkpoints, entries: Lines, last: int, *, complete: bool) -> None:
    """Compare where the files end with where the manifest says that they do."""
    if (manifest.terms is None) != complete:
        raise Broken("the manifest belongs to an export of another kind")
    if (checkpoints.count, checkpoints.last, checkpoints.digest) != (
        manifest.checkpoints,
        manifest.last,
        manifest.checkpoint,
    ):
        first = checkpoints.last + 1
        raise Broken(f"checkpoints were cut off behind number {checkpoints.count}, entry {first - 1}", first)
    if next(entries, None) is not None:
        raise Broken(f"something was inserted behind entry {last}, the last that was signed", last + 1)
    if last != manifest.shown:
        raise Broken(f"entry {manifest.shown} is missing: the file ends behind entry {last}", last + 1, manifest.shown)
    if entries.unended:
        raise Broken(f"entry {last} was cut: its line has no end", last)


def _check_members(archive: zipfile.ZipFile, manifest: Manifest, digests: dict[str, str]) -> None:
    found = dict(digests)
    for name in (ledger.KEYS, ledger.README):
        found[name] = sha256(read_small(archive, name)).hexdigest()
    wrong = sorted(name for name in found | manifest.members if found.get(name) != manifest.members.get(name))
    if wrong:
        raise Broken(f"{', '.join(wrong)}: changed since the manifest was signed")
