"""What of a Trust's OMOP database a cohort query may name: tables, their columns, and what sort of thing a column is.

The tables are the OMOP CDM 5.4 with the radiology tables of R-CDM and MI-CDM. Left out are free text, addresses,
staff, paths and UIDs of images, numbers of devices: no cohort is chosen by them, and each of them can name a person.
"""

import json
from collections.abc import Mapping
from importlib.resources import files

SCHEMA = "omop"

COLUMNS: Mapping[str, tuple[str, ...]] = {
    table: tuple(columns)
    for table, columns in json.loads(files("flip_cohort").joinpath("omop_columns.json").read_text()).items()
}
"""Every table that a query may read, with its columns."""

IDENTIFIERS = frozenset(
    {"person_id", "accession_id"}
    | {f"{table}_id" for table in COLUMNS if "person_id" in COLUMNS[table] and f"{table}_id" in COLUMNS[table]}
    | {
        "image_id",
        "image_feature_event_id",
        "image_finding_id",
        "event_id",
        "measurement_event_id",
        "observation_event_id",
    }
)
"""Columns that tell one person, visit, finding or study from every other."""

_CATEGORICAL = frozenset(
    {
        "modality",
        "manufacturer",
        "protocol_source_value",
        "image_type",
        "gender_source_value",
        "race_source_value",
        "ethnicity_source_value",
        "alg_system",
        "concept_name",
    }
)


def is_categorical(column: str) -> bool:
    """Whether the column holds one of few codes, so that its distribution says something."""
    return column.endswith("_concept_id") or column in _CATEGORICAL
