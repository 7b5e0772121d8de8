"""When a checkpoint is due, what it says, and the trees under it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flip_audit import domain
from flip_audit.domain import Pace, Stretch, Tail
from flip_audit.keys import SigningKey
from flip_audit.testing import invented_key
from flip_contracts import ledger
from flip_contracts.ledger import Checkpoint, Head, Malformed, Tree
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PACE = Pace(entries=10, wait=timedelta(seconds=60))
TAIL = Tail(number=3, position=30, digest="ab" * 32)


@pytest.mark.parametrize(
    ("head", "waited_s", "covered"),
    [
        (30, None, None),
        (31, 59, None),
        (31, 60, Stretch(31, 31)),
        (39, 0, None),
        (40, 0, Stretch(31, 40)),
        (57, 300, Stretch(31, 40)),
        (35, None, None),
    ],
    ids=["nothing", "too-young", "overdue", "too-few", "enough", "a-backlog-goes-in-steps", "only-checkpoints-wait"],
)
def test_a_checkpoint_is_due_after_so_many_entries_or_so_long(head: int, waited_s: int | None, covered: Stretch | None):
    since = None if waited_s is None else NOW - timedelta(seconds=waited_s)
    assert domain.due(TAIL, head, since, NOW, PACE) == covered


def test_a_checkpoint_names_its_last_entry_all_of_them_and_the_checkpoint_before():
    hashes = [ledger.hash_of(b"%d" % number) for number in range(31, 36)]
    checkpoint = domain.checkpoint(TAIL, Stretch(31, 35), hashes, NOW, "cd" * 32)
    assert (checkpoint.number, checkpoint.first, checkpoint.last) == (4, 31, 35)
    assert (checkpoint.head, checkpoint.root) == (hashes[-1].hex(), ledger.root_of(hashes).hex())
    assert checkpoint.previous == TAIL.digest


def test_a_ledger_with_a_gap_is_not_signed():
    with pytest.raises(ValueError, match="has a gap"):
        domain.checkpoint(TAIL, Stretch(31, 35), [ledger.hash_of(b"")] * 4, NOW, "cd" * 32)


def test_an_entry_names_the_one_before_and_is_hashed_as_it_stands():
    one, two = ledger.chained(Head(), [b'{"actor":"user:ada"}', b'{"actor":"user:grace"}'])
    assert one.line == b'{"position":1,"prev":"' + b"0" * 64 + b'","actor":"user:ada"}'
    assert two.line.startswith(b'{"position":2,"prev":"' + ledger.hash_of(one.line).hex().encode())


# The leaves and roots that Certificate Transparency's reference implementations test themselves with.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.requirement("AUD-2")
def test_roots_are_those_of_rfc_6962():
    leaves = [ledger.hash_of(bytes.fromhex(leaf)) for leaf in LEAVES]
    assert [ledger.root_of(leaves[:size]).hex() for size in range(1, 9)] == ROOTS


@pytest.mark.requirement("AUD-2")
@given(size=st.integers(1, 70), at=st.integers(0, 69))
def test_every_leaf_leads_to_the_root_by_its_path_and_by_no_other(size: int, at: int):
    leaves = [ledger.hash_of(b"%d" % number) for number in range(size)]
    index, root = at % size, ledger.root_of(leaves)
    path = Tree(leaves).path(index)
    assert ledger.root_by(path, leaves[index], index, size) == root
    assert ledger.root_by(path, ledger.hash_of(b"forged"), index, size) != root
    for wrong in ([*path, leaves[0]], path[:-1]):
        if wrong != path:
            with pytest.raises(Malformed):
                ledger.root_by(wrong, leaves[index], index, size)


def test_a_signature_is_over_the_statement_as_it_stands():
    key = invented_key()
    checkpoint = domain.checkpoint(Tail(), Stretch(1, 1), [ledger.hash_of(b"1")], NOW, key.id)
    statement, signature = ledger.read_signed(ledger.signed(*key.sign(checkpoint)))
    key.private.public_key().verify(signature, statement)
    assert Checkpoint.decode(statement) == checkpoint


def test_another_kind_of_key_signs_nothing(tmp_path: Path):
    file = tmp_path / "key.pem"
    key = generate_private_key(SECP256R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="no Ed25519 key"):
        SigningKey.of(file)
