"""Brings a Trust's real input to where it belongs: OMOP database, PACS, the operator's folder, the held-out cases."""

from dataclasses import dataclass
from pathlib import Path

from flip_local.data import omop
from flip_local.data.pacs import Pacs
from flip_local.data.records import records
from flip_local.data.source import templates
from flip_local.data.studies import Made, make


@dataclass(frozen=True, slots=True)
class Seeded:
    """What one run of `seed` changed. A second run changes nothing: False, 0, 0."""

    omop_replaced: bool
    images_stored: int
    files_written: int


def seed(
    trust: str,
    *,
    parts: Path,
    out: Path,
    omop_owner_dsn: str,
    pacs_url: str,
    pacs_user: str,
    pacs_password: str,
) -> Seeded:
    """Make the Trust's data, or take what was made before, and load it where something is missing or out of date.

    Args:
        trust: KCH or UCLH.
        parts: folder of downloads; the Debian package is unpacked and the made files are kept there.
        out: the Trust's own folder; gets `operator/labels/` and `heldout/<trust>/{images,labels}/`.
        omop_owner_dsn: libpq URL of the Trust's OMOP database, as its owner; the role `omop_reader` must exist.
        pacs_url: root of the Trust's Orthanc, without `/dicom-web`.
        pacs_user: who may store and delete there.
        pacs_password: of that user.

    Raises:
        ValueError: `trust` has no synthetic data.
        SourceError: the Debian package cannot be had.
        ForeignSchemaError: the database holds records that were not made here.
        PacsError: the PACS did not keep what it was sent.
    """
    made = make(trust, templates(parts), parts / "synthetic-data")
    replaced = omop.load(omop_owner_dsn, records(trust, made.studies()))
    with Pacs(pacs_url, pacs_user, pacs_password) as pacs:
        stored = pacs.fill(made)
    return Seeded(omop_replaced=replaced, images_stored=stored, files_written=write_files(made, trust, out))


def write_files(made: Made, trust: str, out: Path) -> int:
    """Lay out the operator's labels and the held-out cases under `out`; return how many files were not there yet."""
    copies = [
        *((source, out / "operator" / "labels" / source.name) for source in made.labels.iterdir()),
        *(
            (source, out / "heldout" / trust / source.relative_to(made.heldout))
            for source in made.heldout.rglob("*.nii.gz")
        ),
    ]
    return sum(_copy(source, target) for source, target in copies)


def _copy(source: Path, target: Path) -> bool:
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return True
