"""The synthetic records of one Trust as rows of OMOP tables: pure, and the same on every machine.

A few hundred invented persons with visits, conditions, drugs and measurements that fit their age; some of them were
scanned, and only the imaged patients of `people` have studies in the PACS.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Literal

from flip_local.data import vocabulary as v
from flip_local.data.people import PROTOCOL, Patient, Study, hospital, patients

PERSONS = {"KCH": 360, "UCLH": 340}
SOURCE_NAME = "FLIP synthetic records"
"""`cdm_source.cdm_source_name` of every database made here: nothing else is ever replaced."""

_OBSERVED_FROM, _OBSERVED_TO = date(2020, 1, 1), date(2025, 12, 31)
_OTHER_MANUFACTURERS = ("Albion Imaging", "Meridian Medical", "Calder Systems")
_YOUNGEST_ADULT_BORN = 2005

Value = int | float | str | date | datetime | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one table, all with the same columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class _Person:
    id: int
    gender: v.Concept
    birth: date
    race_concept_id: int


@dataclass(frozen=True, slots=True)
class _ScanPlan:
    """How many persons of an age group were scanned by one protocol, and when."""

    protocol: str
    modality: str
    concept: v.Concept
    persons: int
    years: tuple[int, int]
    age_group: Literal["adults", "children"]
    images: int


_SCAN_PLANS = (
    _ScanPlan(PROTOCOL, "MR", v.MRI, 45, (2021, 2023), "adults", 160),
    _ScanPlan(PROTOCOL, "MR", v.MRI, 6, (2024, 2024), "children", 160),
    _ScanPlan("MR HEAD T2 FLAIR", "MR", v.MRI, 38, (2023, 2025), "adults", 48),
    _ScanPlan("CT HEAD", "CT", v.CT, 64, (2022, 2025), "adults", 40),
    _ScanPlan("XR CHEST PA", "DX", v.XRAY, 90, (2021, 2025), "adults", 1),
    _ScanPlan("US ABDOMEN", "US", v.ULTRASOUND, 25, (2021, 2025), "adults", 12),
)
_CHANCE_OF_CONDITION = {
    # condition: chance a person of 40, added chance a decade above or below, its usual drug
    v.HYPERTENSION: (0.20, 0.09, v.LISINOPRIL),
    v.DIABETES: (0.08, 0.04, v.METFORMIN),
    v.ASTHMA: (0.12, -0.01, None),
    v.DEPRESSION: (0.15, -0.01, None),
    v.MIGRAINE: (0.14, -0.02, v.ACETAMINOPHEN),
    v.EPILEPSY: (0.05, 0.00, v.LEVETIRACETAM),
    v.STROKE: (0.02, 0.03, v.ASPIRIN),
    v.PARKINSON: (0.00, 0.02, v.LEVODOPA),
    v.ALZHEIMER: (0.00, 0.03, v.DONEPEZIL),
}
_MEASURED = (
    # measurement, unit, mean, standard deviation
    (v.SYSTOLIC, v.MMHG, 128.0, 14.0),
    (v.DIASTOLIC, v.MMHG, 79.0, 9.0),
    (v.HEIGHT, v.CENTIMETRE, 169.0, 9.0),
    (v.WEIGHT, v.KILOGRAM, 76.0, 13.0),
    (v.HBA1C, v.PERCENT, 5.7, 0.8),
)


def records(trust: str, studies: Iterable[Study]) -> tuple[Table, ...]:
    """Every row of the Trust's OMOP database, the imaged patients' `studies` among them."""
    chance = Random(f"omop-{trust}")  # noqa: S311 - invented people, nothing secret
    rows = _Rows()
    _add_vocabulary(rows)
    _add_source(rows, trust)
    imaged = patients(trust)
    others = _other_people(chance, trust, imaged)
    for person in sorted((*map(_person_of, imaged), *others), key=lambda person: person.id):
        _add_person(rows, chance, person)
    made = {study.accession: study for study in studies}
    for patient in imaged:
        _add_study(rows, patient, made[patient.accession])
    for plan in _SCAN_PLANS:
        _add_scans(rows, chance, trust, plan, others)
    return rows.tables()


def digest(tables: Iterable[Table]) -> str:
    """SHA-256 over all rows: the version of the data."""
    seen = hashlib.sha256()
    for table in tables:
        seen.update(repr((table.name, table.columns, table.rows)).encode())
    return seen.hexdigest()


class _Rows:
    """Collects rows by table, and numbers them."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}

    def next_id(self, table: str) -> int:
        return len(self._rows.get(table, ())) + 1

    def add(self, table: str, **values: Value) -> None:
        self._rows.setdefault(table, []).append(values)

    def tables(self) -> tuple[Table, ...]:
        return tuple(
            Table(name, tuple(rows[0]), tuple(tuple(row.values()) for row in rows)) for name, rows in self._rows.items()
        )


def _add_source(rows: _Rows, trust: str) -> None:
    rows.add(
        "cdm_source",
        cdm_source_name=SOURCE_NAME,
        cdm_source_abbreviation="FLIP-SYNTHETIC",
        cdm_holder=hospital(trust).name,
        source_description="Invented persons; the imaged ones share one public brain template.",
        source_release_date=_OBSERVED_TO,
        cdm_release_date=_OBSERVED_TO,
        cdm_version="5.4",
        cdm_version_concept_id=v.UNMAPPED,
        vocabulary_version="synthetic",
    )


def _add_vocabulary(rows: _Rows) -> None:
    for concept in v.CONCEPTS:
        rows.add(
            "concept",
            concept_id=concept.id,
            concept_name=concept.name,
            domain_id=concept.domain,
            vocabulary_id=concept.vocabulary,
            concept_class_id=concept.concept_class,
            standard_concept=None if concept.id == v.UNMAPPED else "S",
            concept_code=concept.code,
            valid_start_date=v.VALID_FROM,
            valid_end_date=v.VALID_TO,
        )
    for kind in ("domain", "vocabulary", "concept_class"):
        for name in dict.fromkeys(getattr(concept, kind) for concept in v.CONCEPTS):
            rows.add(kind, **{f"{kind}_id": name, f"{kind}_name": name, f"{kind}_concept_id": v.UNMAPPED})


def _person_of(patient: Patient) -> _Person:
    gender = v.MALE if patient.sex == "M" else v.FEMALE
    return _Person(patient.person_id, gender, patient.birth_date, v.UNMAPPED)


def _other_people(chance: Random, trust: str, imaged: Iterable[Patient]) -> list[_Person]:
    """The persons without images in the PACS: one in eight a child, the others born from 1935 on."""
    taken = {patient.person_id for patient in imaged}
    first = hospital(trust).seed * 100_000 + 1
    ids = [id_ for id_ in range(first, first + PERSONS[trust]) if id_ not in taken]
    return [
        _Person(
            id_,
            chance.choice(v.GENDERS),
            _random_day(chance, date(2008, 1, 1), date(2018, 12, 31))
            if index % 8 == 0
            else _random_day(chance, date(1935, 1, 1), date(_YOUNGEST_ADULT_BORN - 5, 12, 31)),
            chance.choice(v.RACES).id,
        )
        for index, id_ in enumerate(ids)
    ]


def _add_person(rows: _Rows, chance: Random, person: _Person) -> None:
    rows.add(
        "person",
        person_id=person.id,
        gender_concept_id=person.gender.id,
        year_of_birth=person.birth.year,
        month_of_birth=person.birth.month,
        day_of_birth=person.birth.day,
        birth_datetime=datetime.combine(person.birth, time()),
        race_concept_id=person.race_concept_id,
        ethnicity_concept_id=v.UNMAPPED,
        gender_source_value=person.gender.code,
    )
    rows.add(
        "observation_period",
        observation_period_id=rows.next_id("observation_period"),
        person_id=person.id,
        observation_period_start_date=_OBSERVED_FROM,
        observation_period_end_date=_OBSERVED_TO,
        period_type_concept_id=v.EHR.id,
    )
    days = sorted(_random_day(chance, _OBSERVED_FROM, _OBSERVED_TO) for _ in range(chance.randint(1, 5)))
    visits = [(_add_visit(rows, person.id, chance.choice(v.VISITS), day), day) for day in days]
    for visit, day in visits:
        _add_measurements(rows, chance, person, visit, day)
    for condition, (at_40, a_decade, drug) in _CHANCE_OF_CONDITION.items():
        decades = (_OBSERVED_FROM.year - person.birth.year - 40) / 10
        if chance.random() < at_40 + a_decade * decades:
            visit, day = chance.choice(visits)
            _add_condition(rows, person.id, visit, day, condition)
            if drug is not None:
                _add_drug(rows, person.id, visit, day, drug)


def _add_visit(rows: _Rows, person_id: int, kind: v.Concept, day: date) -> int:
    visit = rows.next_id("visit_occurrence")
    rows.add(
        "visit_occurrence",
        visit_occurrence_id=visit,
        person_id=person_id,
        visit_concept_id=kind.id,
        visit_start_date=day,
        visit_end_date=day + timedelta(days=3 if kind == v.INPATIENT else 0),
        visit_type_concept_id=v.EHR.id,
    )
    return visit


def _add_measurements(rows: _Rows, chance: Random, person: _Person, visit: int, day: date) -> None:
    for measurement, unit, mean, deviation in _MEASURED:
        rows.add(
            "measurement",
            measurement_id=rows.next_id("measurement"),
            person_id=person.id,
            measurement_concept_id=measurement.id,
            measurement_date=day,
            measurement_type_concept_id=v.EHR.id,
            value_as_number=round(chance.gauss(mean, deviation), 1),
            unit_concept_id=unit.id,
            visit_occurrence_id=visit,
            unit_source_value=unit.code,
        )


def _add_condition(rows: _Rows, person_id: int, visit: int, day: date, condition: v.Concept) -> None:
    rows.add(
        "condition_occurrence",
        condition_occurrence_id=rows.next_id("condition_occurrence"),
        person_id=person_id,
        condition_concept_id=condition.id,
        condition_start_date=day,
        condition_type_concept_id=v.EHR.id,
        visit_occurrence_id=visit,
        condition_source_value=condition.code,
    )


def _add_drug(rows: _Rows, person_id: int, visit: int, day: date, drug: v.Concept) -> None:
    rows.add(
        "drug_exposure",
        drug_exposure_id=rows.next_id("drug_exposure"),
        person_id=person_id,
        drug_concept_id=drug.id,
        drug_exposure_start_date=day,
        drug_exposure_end_date=day + timedelta(days=28),
        drug_type_concept_id=v.EHR.id,
        days_supply=28,
        visit_occurrence_id=visit,
        drug_source_value=drug.code,
    )


def _add_study(rows: _Rows, patient: Patient, study: Study) -> None:
    """The study that the PACS holds, its one series, and each of its images."""
    columns, height, slices = study.shape
    scan, procedure = _add_scan(
        rows,
        person_id=patient.person_id,
        at=patient.scanned_at,
        modality="MR",
        concept=v.MRI,
        protocol=PROTOCOL,
        manufacturer=patient.hospital.manufacturer,
        images=slices,
        accession=patient.accession,
    )
    rows.add(
        "image_occurrence",
        image_occurrence_id=rows.next_id("image_occurrence"),
        person_id=patient.person_id,
        procedure_occurrence_id=procedure,
        image_occurrence_date=patient.scanned_at.date(),
        image_study_uid=study.study_uid,
        image_series_uid=study.series_uid,
        modality_concept_id=v.MRI.id,
    )
    for number in range(1, slices + 1):
        rows.add(
            "radiology_image",
            image_id=rows.next_id("radiology_image"),
            radiology_occurrence_id=scan,
            person_id=patient.person_id,
            image_type="ORIGINAL",
            image_no=number,
            phase_total_no=1,
            image_resolution_rows=height,
            image_resolution_columns=columns,
            image_slice_thickness=2.0,
        )


def _add_scans(rows: _Rows, chance: Random, trust: str, plan: _ScanPlan, people: Iterable[_Person]) -> None:
    """Scan the planned number of persons of the age group, each once."""
    children = plan.age_group == "children"
    eligible = [person for person in people if (person.birth.year > _YOUNGEST_ADULT_BORN) == children]
    first, last = plan.years
    for person in chance.sample(eligible, plan.persons):
        day = _random_day(chance, date(first, 1, 1), date(last, 12, 31))
        number = 10_000 + rows.next_id("radiology_occurrence")
        _add_scan(
            rows,
            person_id=person.id,
            at=datetime.combine(day, time(8)) + timedelta(minutes=chance.randrange(600)),
            modality=plan.modality,
            concept=plan.concept,
            protocol=plan.protocol,
            manufacturer=chance.choice(_OTHER_MANUFACTURERS),
            images=plan.images,
            accession=f"{trust}{day.year % 100}{number}",
        )


def _add_scan(
    rows: _Rows,
    *,
    person_id: int,
    at: datetime,
    modality: str,
    concept: v.Concept,
    protocol: str,
    manufacturer: str,
    images: int,
    accession: str,
) -> tuple[int, int]:
    """The scan with its visit and procedure; returns the ids of scan and procedure."""
    visit = _add_visit(rows, person_id, v.OUTPATIENT, at.date())
    procedure, scan = rows.next_id("procedure_occurrence"), rows.next_id("radiology_occurrence")
    rows.add(
        "procedure_occurrence",
        procedure_occurrence_id=procedure,
        person_id=person_id,
        procedure_concept_id=concept.id,
        procedure_date=at.date(),
        procedure_datetime=at,
        procedure_type_concept_id=v.EHR.id,
        visit_occurrence_id=visit,
        procedure_source_value=protocol,
    )
    rows.add(
        "radiology_occurrence",
        radiology_occurrence_id=scan,
        person_id=person_id,
        radiology_occurrence_date=at.date(),
        radiology_occurrence_datetime=at,
        radiology_modality_concept_id=concept.id,
        image_total_count=images,
        image_type="ORIGINAL",
        visit_occurrence_id=visit,
        modality=modality,
        manufacturer=manufacturer,
        protocol_source_value=protocol,
        count_of_series=1,
        accession_id=accession,
    )
    return scan, procedure


def _random_day(chance: Random, first: date, last: date) -> date:
    return first + timedelta(days=chance.randint(0, (last - first).days))
