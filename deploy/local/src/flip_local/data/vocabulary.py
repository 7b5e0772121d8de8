"""The few OMOP concepts that the synthetic records use. The vocabularies themselves cannot be shipped.

Concept 0 ("No matching concept") stands for everything that is not mapped.
"""

from dataclasses import dataclass
from datetime import date

UNMAPPED = 0
VALID_FROM, VALID_TO = date(1970, 1, 1), date(2099, 12, 31)


@dataclass(frozen=True, slots=True)
class Concept:
    id: int
    name: str
    domain: str
    vocabulary: str
    concept_class: str
    code: str


def _concepts(domain: str, vocabulary: str, concept_class: str, *rows: tuple[int, str, str]) -> tuple[Concept, ...]:
    return tuple(Concept(id_, name, domain, vocabulary, concept_class, code) for id_, name, code in rows)


MALE, FEMALE = GENDERS = _concepts("Gender", "Gender", "Gender", (8507, "MALE", "M"), (8532, "FEMALE", "F"))
RACES = _concepts(
    "Race",
    "Race",
    "Race",
    (8527, "White", "5"),
    (8515, "Asian", "2"),
    (8516, "Black or African American", "3"),
)
OUTPATIENT, INPATIENT, EMERGENCY = VISITS = _concepts(
    "Visit",
    "Visit",
    "Visit",
    (9202, "Outpatient Visit", "OP"),
    (9201, "Inpatient Visit", "IP"),
    (9203, "Emergency Room Visit", "ER"),
)
(EHR,) = TYPES = _concepts("Type Concept", "Type Concept", "Type Concept", (32817, "EHR", "OMOP4976890"))
(
    HYPERTENSION,
    DIABETES,
    ASTHMA,
    DEPRESSION,
    MIGRAINE,
    EPILEPSY,
    STROKE,
    PARKINSON,
    ALZHEIMER,
) = CONDITIONS = _concepts(
    "Condition",
    "SNOMED",
    "Disorder",
    (316866, "Hypertensive disorder", "38341003"),
    (201826, "Type 2 diabetes mellitus", "44054006"),
    (317009, "Asthma", "195967001"),
    (440383, "Depressive disorder", "35489007"),
    (318736, "Migraine", "37796009"),
    (380378, "Epilepsy", "84757009"),
    (381316, "Cerebrovascular accident", "230690007"),
    (381270, "Parkinson's disease", "49049000"),
    (378419, "Alzheimer's disease", "26929004"),
)
LISINOPRIL, METFORMIN, ACETAMINOPHEN, ASPIRIN, LEVODOPA, DONEPEZIL, LEVETIRACETAM = DRUGS = _concepts(
    "Drug",
    "RxNorm",
    "Ingredient",
    (1308216, "lisinopril", "29046"),
    (1503297, "metformin", "6809"),
    (1125315, "acetaminophen", "161"),
    (1112807, "aspirin", "1191"),
    (789578, "levodopa", "6375"),
    (715997, "donepezil", "135447"),
    (711584, "levetiracetam", "114477"),
)
MMHG, CENTIMETRE, KILOGRAM, PERCENT = UNITS = _concepts(
    "Unit",
    "UCUM",
    "Unit",
    (8876, "millimeter mercury column", "mm[Hg]"),
    (8582, "centimeter", "cm"),
    (9529, "kilogram", "kg"),
    (8554, "percent", "%"),
)
SYSTOLIC, DIASTOLIC, HEIGHT, WEIGHT, HBA1C = MEASUREMENTS = _concepts(
    "Measurement",
    "LOINC",
    "Clinical Observation",
    (3004249, "Systolic blood pressure", "8480-6"),
    (3012888, "Diastolic blood pressure", "8462-4"),
    (3036277, "Body height", "8302-2"),
    (3025315, "Body weight", "29463-7"),
    (3004410, "Hemoglobin A1c/Hemoglobin.total in Blood", "4548-4"),
)
MRI, CT, XRAY, ULTRASOUND = IMAGING = _concepts(
    "Procedure",
    "SNOMED",
    "Procedure",
    (4013636, "Magnetic resonance imaging", "113091000"),
    (4300757, "Computed tomography", "77477000"),
    (4163872, "Plain chest X-ray", "399208008"),
    (4037672, "Ultrasonography", "16310003"),
)
CONCEPTS = (
    *_concepts("Metadata", "None", "Undefined", (UNMAPPED, "No matching concept", "No matching concept")),
    *GENDERS,
    *RACES,
    *VISITS,
    *TYPES,
    *CONDITIONS,
    *DRUGS,
    *UNITS,
    *MEASUREMENTS,
    *IMAGING,
)
