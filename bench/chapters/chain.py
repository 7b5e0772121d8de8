"""How fast can an auditor check an export of the ledger?"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from flip_audit.testing import Invented
from flip_client.verify import verify

from bench.alone import Measured, alone
from bench.ground import Ground
from bench.measuring import Series
from bench.report import Chapter, Goal, Scale

_ENTRIES = 1_000_000
_FEW = 10


async def run(ground: Ground, scale: Scale) -> Chapter:
    """`flip audit verify` on a complete export, and on one with a tenth of the entries to compare its memory with."""
    del ground
    entries = scale.of(_ENTRIES)
    with TemporaryDirectory() as folder:
        large = await Invented(entries).export(Path(folder) / "large.zip")
        small = await Invented(entries // _FEW).export(Path(folder) / "small.zip")
        check = partial(alone, verify)
        of_large = [await check(large) for _ in range(scale.rounds)]
        of_small = [await check(small) for _ in range(scale.rounds)]
    rates = Series(f"{entries:,} entries", "chain, checkpoints, manifest", "/s", _rates(entries, of_large))
    return Chapter(
        "Verifying the ledger",
        f"An export of {entries:,} entries, from its first byte to its last: every hash, the Merkle root and"
        " signature of every checkpoint, the digest of every file in it; in a process of its own.",
        (
            rates,
            Series(f"{entries:,} entries", "peak of memory", "MiB", _peaks(of_large)),
            Series(f"{entries // _FEW:,} entries", "peak of memory", "MiB", _peaks(of_small)),
        ),
        (Goal("chain verification", 200_000, rates.median, "/s"),),
    )


def _rates(entries: int, measured: list[Measured]) -> tuple[float, ...]:
    return tuple(entries / each.seconds for each in measured)


def _peaks(measured: list[Measured]) -> tuple[float, ...]:
    return tuple(each.peak_mib for each in measured)
