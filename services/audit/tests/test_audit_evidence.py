"""An export verifies itself: untouched it passes; whatever is done to it without the key is found, and named."""

import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from flip_audit.keys import SigningKey
from flip_audit.testing import Invented, invented_key
from flip_client.evidence import Broken, NotAnExport
from flip_client.verify import verify
from flip_contracts import ledger
from flip_contracts.ledger import Checkpoint, Head, Manifest, Statement, Terms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LENGTH, PACE = 26, 9
KEY, OTHER_KEY = invented_key(1), invented_key(2)
FORKED = Invented(LENGTH + 1, PACE + 1, KEY)
TRUSTED = [KEY.private.public_key()]
PAGE_OF_TRIES = 25
Random = random.Random


# --- exports, taken apart and put together --------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The members of an export, in their order."""

    members: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, file: Path) -> "Parts":
        with zipfile.ZipFile(file) as archive:
            return cls({name: archive.read(name) for name in archive.namelist()})

    def having(self, name: str, content: bytes) -> "Parts":
        return Parts({**self.members, name: content})

    @property
    def shown(self) -> str:
        return next(iter(self.members))

    def lines(self, name: str | None = None) -> list[bytes]:
        return self.members[name or self.shown].splitlines()

    def having_lines(self, lines: list[bytes], name: str | None = None) -> "Parts":
        return self.having(name or self.shown, b"".join(line + b"\n" for line in lines))

    @property
    def positions(self) -> list[int]:
        return [position_of(line) for line in self.lines()]

    def packed(self) -> io.BytesIO:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in self.members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return file


def position_of(line: bytes) -> int:
    return json.loads(line)["entry"]["position"]


@pytest.fixture(scope="module")
async def complete(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts.of(await Invented(LENGTH, PACE, KEY).export(tmp_path_factory.mktemp("export") / "ledger.zip"))


@pytest.fixture(scope="module")
async def selected(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    file = tmp_path_factory.mktemp("export") / "selection.zip"
    return Parts.of(await Invented(LENGTH, PACE, KEY).export(file, Terms(actor="user:ada")))


def found(parts: Parts) -> Broken | NotAnExport:
    """What the verifier says is wrong."""
    with pytest.raises((Broken, NotAnExport)) as caught:
        verify(parts.packed(), TRUSTED)
    return caught.value


def broken_at(parts: Parts) -> tuple[int | None, int | None]:
    wrong = found(parts)
    assert isinstance(wrong, Broken)
    return wrong.first, wrong.last


# --- what is done to them -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """A changed export, and between which positions the finding must lie; any finding will do where it is None."""

    parts: Parts
    between: tuple[int, int] | None = None


def at(position: int) -> tuple[int, int]:
    return position, position


def covered(position: int) -> tuple[int, int]:
    """Up to where a change that made the hashes anew can be told: its checkpoint, or the entry behind it."""
    first = (position - 1) // PACE * PACE + 1
    return first, min(first + PACE - 1, LENGTH)


def expected(parts: Parts, index: int) -> tuple[int, int] | None:
    """What must be named when the line at `index` is wrong."""
    positions = parts.positions
    return at(positions[index]) if index < len(positions) else None


def flip_a_byte(parts: Parts, rng: Random) -> Done:
    name = rng.choice([*parts.members])
    content = bytearray(parts.members[name])
    index = rng.randrange(len(content))
    content[index] ^= rng.randrange(1, 256)
    return Done(parts.having(name, bytes(content)))


def change_a_field(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    index = rng.randrange(len(lines))
    position = position_of(lines[index])
    frame, mark, entry = lines[index].partition(b'"entry":')
    was, becomes = rng.choice([(b'"agreed"', b'"refused"'), (b'"KCH"', b'"UCLH"'), (b":hub", b":HUB"), (b":0", b":9")])
    lines[index] = frame + mark + (entry.replace(was, becomes, 1) if was in entry else entry + b" ")
    return Done(parts.having_lines(lines), at(position))


def drop(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    index = rng.randrange(len(lines))
    position = position_of(lines.pop(index))
    before = position_of(lines[index - 1]) + 1 if index else 1
    return Done(parts.having_lines(lines), (before if parts.shown == ledger.SELECTION else position, position))


def swap(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    one, two = sorted(rng.sample(range(len(lines)), 2))
    position = position_of(lines[one])
    lines[one], lines[two] = lines[two], lines[one]
    return Done(parts.having_lines(lines), at(position))


def duplicate(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    index, slot = rng.randrange(len(lines)), rng.randrange(len(lines) + 1)
    first_wrong = index + 1 if slot == index else slot
    between = expected(parts, first_wrong) if parts.shown == ledger.ENTRIES else None
    lines.insert(slot, lines[index])
    return Done(parts.having_lines(lines), between)


def insert_something(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    slot = rng.randrange(len(lines) + 1)
    between = expected(parts, slot)
    lines.insert(slot, rng.choice([b"", b"{}", b'{"hash":"', rng.randbytes(40).replace(b"\n", b"."), lines[0][:-1]]))
    return Done(parts.having_lines(lines), between)


def truncate_a_member(parts: Parts, rng: Random) -> Done:
    content = parts.members[parts.shown]
    end = rng.randrange(len(content))
    index = content[: end + 1].count(b"\n")
    between = expected(parts, index) if parts.shown == ledger.ENTRIES else None
    return Done(parts.having(parts.shown, content[:end]), between)


def renumber(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    index = rng.randrange(len(lines))
    position = position_of(lines[index])
    number = rng.choice([0, position - 1, position + 1, position + PACE, 10**9])
    lines[index] = lines[index].replace(b'"position":%d,' % position, b'"position":%d,' % number)
    return Done(parts.having_lines(lines), at(position))


def rename_a_hash(parts: Parts, rng: Random) -> Done:
    lines = parts.lines()
    index = rng.randrange(len(lines))
    field = rng.choice([b'"hash":"', b'"prev":"'])
    start = lines[index].index(field) + len(field)
    changed = lines[index][:start] + rng.randbytes(32).hex().encode() + lines[index][start + 64 :]
    return Done(parts.having_lines([*lines[:index], changed, *lines[index + 1 :]]), at(position_of(lines[index])))


def hash_anew(lines: list[bytes], index: int, until: int, change: Callable[[bytes], bytes]) -> list[bytes]:
    """Change an entry and make its hash anew, and those of the entries behind it up to `until`."""
    entries = [line.partition(b'"entry":')[2][:-1] for line in lines]
    prev = json.loads(entries[index])["prev"]
    for each in range(index, until):
        facts = entries[each].split(b",", 2)[2]
        head = Head(each, bytes.fromhex(prev))
        entry = next(ledger.chained(head, [b"{" + (change(facts) if each == index else facts)]))
        lines[each], prev = ledger.shown(entry), entry.hash.hex()
    return lines


def another_reason(facts: bytes) -> bytes:
    return facts.replace(b'"agreed"', b'"forged"')


def rehash_the_tail(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.ENTRIES)
    index = rng.randrange(LENGTH)
    return Done(parts.having_lines(hash_anew(lines, index, LENGTH, another_reason)), covered(index + 1))


def rehash_some(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.ENTRIES)
    index = rng.randrange(LENGTH)
    until = rng.randrange(index, LENGTH) + 1
    return Done(parts.having_lines(hash_anew(lines, index, until, another_reason)), covered(index + 1))


def insert_a_forged_entry(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.ENTRIES)
    index = rng.randrange(LENGTH)
    forged = hash_anew(parts.lines(), index, index + 1, another_reason)[index]
    return Done(parts.having_lines([*lines[:index], forged, *lines[index:]]), covered(index + 1))


def insert_and_rehash(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.ENTRIES)
    index = rng.randrange(LENGTH)
    longer = [*lines[: index + 1], *lines[index:]]
    return Done(parts.having_lines(hash_anew(longer, index, LENGTH + 1, another_reason)), covered(index + 1))


def drop_and_rehash(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.ENTRIES)
    index = rng.randrange(LENGTH - 1)
    shorter = [*lines[:index], lines[index + 1]]
    shorter[index] = lines[index].partition(b'"entry":')[0] + b'"entry":' + _at(lines[index + 1], lines[index])
    return Done(
        parts.having_lines(hash_anew([*shorter, *lines[index + 2 :]], index, LENGTH - 1, bytes)), covered(index + 1)
    )


def _at(facts: bytes, place: bytes) -> bytes:
    """The facts of one line's entry at the place of another's."""
    there = place.partition(b'"entry":')[2].split(b",", 2)
    return b",".join([*there[:2], facts.partition(b'"entry":')[2].split(b",", 2)[2]])


def cut_the_tail_at_a_checkpoint(parts: Parts, rng: Random) -> Done:
    kept = rng.randrange(LENGTH // PACE + 1)
    shorter = parts.having_lines(parts.lines()[: kept * PACE])
    shorter = shorter.having_lines(parts.lines(ledger.CHECKPOINTS)[:kept], ledger.CHECKPOINTS)
    return Done(shorter, at(kept * PACE + 1))


def change_the_manifest(parts: Parts, rng: Random) -> Done:
    statement, signature = ledger.read_signed(parts.members[ledger.MANIFEST])
    manifest = Manifest.decode(statement)
    changed = rng.choice(
        [
            manifest.model_copy(update={"entries": manifest.entries - 1}),
            manifest.model_copy(update={"shown": manifest.shown - 1}),
            manifest.model_copy(update={"terms": Terms(actor="user:grace")}),
            manifest.model_copy(update={"members": {**manifest.members, ledger.README: "0" * 64}}),
        ]
    )
    return Done(parts.having(ledger.MANIFEST, ledger.signed(changed.encode(), signature)))


def cut_the_tail_and_tell_so(parts: Parts, rng: Random) -> Done:
    """What an export of an earlier time looks like, but for the manifest's signature."""
    kept = rng.randrange(1, LENGTH // PACE + 1)
    shorter = cut_the_tail_at_a_checkpoint(parts, _Always(kept)).parts
    statement, signature = ledger.read_signed(parts.members[ledger.MANIFEST])
    last, _ = ledger.read_signed(shorter.lines(ledger.CHECKPOINTS)[-1])
    changes = {
        "last": kept * PACE,
        "shown": kept * PACE,
        "entries": kept * PACE,
        "checkpoints": kept,
        "checkpoint": ledger.digest_of(last),
        "members": {name: sha256(it).hexdigest() for name, it in shorter.members.items() if name != ledger.MANIFEST},
    }
    told = Manifest.decode(statement).model_copy(update=changes)
    return Done(shorter.having(ledger.MANIFEST, ledger.signed(told.encode(), signature)))


class _Always(Random):
    """Draws the same number each time."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self.number = number

    def randrange(self, *_: object, **__: object) -> int:
        return self.number


def disturb_the_checkpoints(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.CHECKPOINTS)
    one, two = sorted(rng.sample(range(len(lines)), 2))
    match rng.randrange(4):
        case 0:
            lines[one], lines[two] = lines[two], lines[one]
        case 1:
            del lines[one]
        case 2:
            lines.insert(two, lines[one])
        case _:
            lines[one] = lines[two]
    return Done(parts.having_lines(lines, ledger.CHECKPOINTS))


def change_a_checkpoint(parts: Parts, rng: Random) -> Done:
    lines = parts.lines(ledger.CHECKPOINTS)
    index = rng.randrange(len(lines))
    statement, signature = ledger.read_signed(lines[index])
    checkpoint = Checkpoint.decode(statement)
    changed = rng.choice(
        [
            checkpoint.model_copy(update={"root": rng.randbytes(32).hex()}),
            checkpoint.model_copy(update={"head": rng.randbytes(32).hex()}),
            checkpoint.model_copy(update={"last": checkpoint.last + 1}),
            checkpoint.model_copy(update={"number": checkpoint.number + 1}),
        ]
    )
    lines[index] = ledger.signed(changed.encode(), signature)
    return Done(parts.having_lines(lines, ledger.CHECKPOINTS), at(index * PACE + 1))


def take_a_checkpoint_of_another_ledger(parts: Parts, rng: Random) -> Done:
    """The same key has signed it: a ledger that was once forked, or a test's."""
    lines = parts.lines(ledger.CHECKPOINTS)
    index = rng.randrange(len(lines))
    checkpoint, *signed = FORKED.signed[index]
    lines[index] = ledger.signed(*signed)
    assert checkpoint.key == KEY.id
    return Done(parts.having_lines(lines, ledger.CHECKPOINTS))


def sign_with_another_key(parts: Parts, rng: Random) -> Done:
    """Forge the ledger and sign all of it anew, as somebody with a key of their own would."""
    name = rng.choice([ledger.MANIFEST, ledger.CHECKPOINTS])
    lines = [resigned(line, OTHER_KEY) for line in parts.lines(name)]
    changed = parts.having_lines(lines, name) if name != ledger.MANIFEST else parts.having(name, lines[0])
    keys = {"keys": [{"id": OTHER_KEY.id, "public_key": OTHER_KEY.public.hex()}]}
    return Done(changed.having(ledger.KEYS, json.dumps(keys).encode()))


def resigned(line: bytes, key: SigningKey) -> bytes:
    statement, _ = ledger.read_signed(line)
    kind: type[Statement] = Manifest if b"flip.ledger.export" in statement else Checkpoint
    return ledger.signed(*key.sign(kind.decode(statement).model_copy(update={"key": key.id})))


def rearrange_the_members(parts: Parts, rng: Random) -> Done:
    names = [*parts.members]
    match rng.randrange(3):
        case 0:
            names.remove(rng.choice(names))
            return Done(Parts({name: parts.members[name] for name in names}))
        case 1:
            return Done(parts.having(rng.choice(["notes.txt", "entries.json", "../keys.json"]), b"{}"))
        case _:
            one, two = rng.sample(range(len(names)), 2)
            names[one], names[two] = names[two], names[one]
            return Done(Parts({name: parts.members[name] for name in names}))


ON_BOTH = (
    flip_a_byte,
    change_a_field,
    drop,
    swap,
    duplicate,
    insert_something,
    truncate_a_member,
    renumber,
    rename_a_hash,
    change_the_manifest,
    disturb_the_checkpoints,
    change_a_checkpoint,
    take_a_checkpoint_of_another_ledger,
    sign_with_another_key,
    rearrange_the_members,
)
ON_CHAINS = (
    rehash_the_tail,
    rehash_some,
    insert_a_forged_entry,
    insert_and_rehash,
    drop_and_rehash,
    cut_the_tail_at_a_checkpoint,
    cut_the_tail_and_tell_so,
)


def assert_named(done: Done, how: str) -> None:
    wrong = found(done.parts)
    if done.between is None:
        return
    told = f"{how}: expected between {done.between}, told {wrong!r}"
    assert isinstance(wrong, Broken), told
    assert wrong.first is not None, told
    assert wrong.last is not None, told
    assert wrong.first <= done.between[1], told
    assert wrong.last >= done.between[0], told
    if done.between[0] == done.between[1] and how in EXACT:
        assert (wrong.first, wrong.last) == done.between, told


EXACT = {
    "change_a_field",
    "drop",
    "swap",
    "duplicate",
    "insert_something",
    "renumber",
    "cut_the_tail_at_a_checkpoint",
    "change_a_checkpoint",
}


# --- promises -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AUD-2")
def test_an_export_that_nobody_touched_passes(complete: Parts, selected: Parts):
    whole, some = verify(complete.packed(), TRUSTED), verify(selected.packed(), TRUSTED)
    assert (whole.manifest.entries, whole.manifest.last, whole.manifest.terms) == (LENGTH, LENGTH, None)
    assert (some.manifest.entries, some.manifest.last) == (len(range(3, LENGTH + 1, 3)), LENGTH)
    assert whole.keys == some.keys == (KEY.id,)


@pytest.mark.requirement("AUD-2")
@settings(
    max_examples=400, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_each_of_ten_thousand_manipulations_is_found(complete: Parts, selected: Parts, seed: int):
    rng = Random(seed)
    for _ in range(PAGE_OF_TRIES):
        of_all = rng.random() < 0.6
        parts = complete if of_all else selected
        manipulate = rng.choice((*ON_BOTH, *ON_CHAINS) if of_all else ON_BOTH)
        done = manipulate(parts, rng)
        assert done.parts != parts or [*done.parts.members] != [*parts.members], manipulate.__name__
        assert_named(done, manipulate.__name__)


@pytest.mark.requirement("AUD-2")
@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0, 0.999), flipped=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_file_cut_anywhere_is_refused_and_a_flipped_bit_passes_only_where_no_evidence_is(
    complete: Parts, cut: float, flipped: float, bit: int
):
    content = bytearray(complete.packed().getvalue())
    with pytest.raises((NotAnExport, Broken)):
        verify(io.BytesIO(content[: int(cut * len(content))]), TRUSTED)
    content[int(flipped * len(content))] ^= 1 << bit
    try:
        verify(io.BytesIO(content), TRUSTED)
    except (NotAnExport, Broken):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == complete.members


@pytest.mark.requirement("AUD-2")
async def test_a_ledger_is_never_held_whole(tmp_path: Path):
    file = await Invented(30_000, 1024, KEY).export(tmp_path / "ledger.zip")
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo(ledger.ENTRIES).file_size
    tracemalloc.start()
    verify(file, TRUSTED)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < size / 4
