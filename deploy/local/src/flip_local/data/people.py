"""The patients who have images: the same persons in the PACS, in the OMOP database and in the operator's folder."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Literal

PATIENTS_A_TRUST = 14
PROTOCOL = "MR HEAD T1 3D"
HELD_OUT = frozenset({7, 13})
"""Numbers of the patients kept for the closing prediction: one untouched lattice, one tilted head."""

Side = Literal["L", "R"]
Sex = Literal["M", "F"]

# fmt: off
_FAMILY_NAMES = (
    "Abernathy", "Bergström", "Castellano", "Dworzak", "Eriksen", "Fitzwilliam", "Grzybowski", "Hollingsworth",
    "Iwanowska", "Jørgensen", "Kowalczyk", "Lindqvist", "Montgomery", "Núñez", "Oyelaran", "Przybylski",
    "Quattrocchi", "Rasmussen", "Szymański", "Thistlewood", "Underhill", "Vasconcelos", "Wojciechowski",
    "Xanthopoulos", "Yarborough", "Zimmermann", "Featherstone", "Okonjo",
)
# fmt: on
_GIVEN_NAMES: Mapping[Sex, tuple[str, ...]] = {
    "M": ("Ambrose", "Bartholomew", "Cornelius", "Dmitri", "Eustace", "Florentin", "Godfrey"),
    "F": ("Araminta", "Clementine", "Dorothea", "Zoë", "Felicity", "Guinevere", "Henrietta"),
}


@dataclass(frozen=True, slots=True)
class Hospital:
    """What sets one Trust's images apart: its hemisphere, its scanner, its numbering."""

    code: str
    side: Side
    seed: int
    manufacturer: str
    scanner: str

    @property
    def name(self) -> str:
        return f"{self.code} Teaching Hospital"


HOSPITALS: Mapping[str, Hospital] = MappingProxyType(
    {
        "KCH": Hospital("KCH", side="L", seed=1, manufacturer="Albion Imaging", scanner="Albion 3T"),
        "UCLH": Hospital("UCLH", side="R", seed=2, manufacturer="Meridian Medical", scanner="Meridian Vista"),
    }
)


@dataclass(frozen=True, slots=True)
class Patient:
    """One invented person with one MR study."""

    hospital: Hospital
    number: int
    person_id: int
    hospital_number: str
    family_name: str
    given_name: str
    sex: Sex
    birth_date: date
    accession: str
    scanned_at: datetime

    @property
    def case(self) -> str:
        """nnU-Net's name of the case, e.g. `KCH_07`."""
        return f"{self.hospital.code}_{self.number:02d}"

    @property
    def held_out(self) -> bool:
        return self.number in HELD_OUT


@dataclass(frozen=True, slots=True)
class Study:
    """A patient's MR study as the PACS must hold it. `shape` is columns, rows and slices of its one series."""

    accession: str
    study_uid: str
    series_uid: str
    instance_uids: tuple[str, ...]
    shape: tuple[int, int, int]


def hospital(code: str) -> Hospital:
    """The Trust's hospital; `ValueError` for a code that has no images."""
    try:
        return HOSPITALS[code]
    except KeyError:
        raise ValueError(f"trust {code!r} has no synthetic data; known are {', '.join(HOSPITALS)}") from None


def patients(code: str) -> tuple[Patient, ...]:
    """The Trust's 14 imaged patients: adults, scanned in 2024 when they are for training and in 2025 when held out."""
    return tuple(_patient(hospital(code), number) for number in range(PATIENTS_A_TRUST))


def _patient(at: Hospital, number: int) -> Patient:
    chance = random.Random(f"patient-{at.code}-{number}")  # noqa: S311 - invented people, nothing secret
    sex: Sex = "MF"[number % 2]  # type: ignore[assignment]
    year = 2025 if number in HELD_OUT else 2024
    scanned_at = datetime(year, 1, 8, 9) + timedelta(days=24 * number + at.seed, minutes=chance.randrange(480))  # noqa: DTZ001 - DICOM's local time
    return Patient(
        hospital=at,
        number=number,
        person_id=at.seed * 100_000 + 23 * (number + 1),
        hospital_number=f"{at.code}-{400_000 + 7919 * (number + 1)}",
        family_name=_FAMILY_NAMES[(at.seed - 1) * PATIENTS_A_TRUST + number],
        given_name=_GIVEN_NAMES[sex][number // 2],
        sex=sex,
        birth_date=date(1938, 1, 1) + timedelta(days=chance.randrange(50 * 365)),
        accession=f"{at.code}{year % 100}{60_000 + 137 * (number + 1)}",
        scanned_at=scanned_at,
    )
