"""De-identification by the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E, edition 2026c.

The action tables come from the package dicom-anonymizer; they are applied here to every data set at every depth, with
two options of the standard: Retain Longitudinal Temporal Information with Modified Dates, and Retain Patient
Characteristics (sex, and age up to 90 years). Beyond the profile, a text, address, UID, date or binary that its tables
don't know is removed or replaced as well, unless it is named here as needed to read the image. Text that is kept
must not repeat the patient's identifiers: then the study is refused.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as tables
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, SecondaryCaptureImageStorage

from flip_imaging.ports import DeidentificationRefused
from flip_imaging.pseudonyms import ProjectKey

Action = Literal["removed", "emptied", "replaced", "uid-mapped", "date-shifted", "kept"]

METHOD = "PS3.15 2026c basic; modified dates; patient characteristics"
METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
OLDEST_AGE_YEARS = 90
SHORTEST_IDENTIFIER = 3
IMPLEMENTATION_UID = UID("2.25.195617282317493718432092158205063180481")


def _listed(*names: str) -> frozenset[BaseTag]:
    return frozenset(Tag(*entry) for name in names for entry in getattr(tables, name) if len(entry) == 2)


def _tags(keywords: str) -> frozenset[BaseTag]:
    return frozenset(Tag(keyword) for keyword in keywords.split())


# Where the profile leaves a choice ("X/Z", "X/D", "X/Z/U*") the element goes: what an image needs is named below.
REMOVED = _listed("X_TAGS", "X_Z_TAGS", "X_D_TAGS", "X_Z_D_TAGS", "X_Z_U_STAR_TAGS")
EMPTIED = _listed("Z_TAGS", "Z_D_TAGS")
REPLACED = _listed("D_TAGS")
CURVES_AND_OVERLAYS = (range(0x5000, 0x5100), range(0x6000, 0x6100))

EXCEPTED = (
    # Modified Dates: these dates are shifted, the times of day stay.
    _tags("StudyDate SeriesDate AcquisitionDate ContentDate AcquisitionDateTime")
    | _tags("StudyTime SeriesTime AcquisitionTime ContentTime")
    # Patient Characteristics.
    | _tags("PatientSex PatientAge")
    # What ties a segmentation to its image, with the UIDs in it mapped, and its own names for its structures.
    | _tags("ReferencedImageSequence SourceImageSequence ReferencedSeriesSequence ReferencedInstanceSequence")
    | _tags("SegmentLabel TrackingID TrackingUID")
)
TEXTS = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
NEEDED_TEXTS = (
    _tags("CodeValue LongCodeValue URNCodeValue CodeMeaning CodingSchemeDesignator CodingSchemeVersion")
    | _tags("Manufacturer ManufacturerModelName SoftwareVersions SequenceName PulseSequenceName ConvolutionKernel")
    | _tags("ReceiveCoilName TransmitCoilName SegmentLabel SegmentAlgorithmName AlgorithmName AlgorithmVersion")
    | _tags("TrackingID RescaleType LUTExplanation WindowCenterWidthExplanation DimensionDescriptionLabel")
)
BINARIES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
NEEDED_BINARIES = _tags(
    "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData"
) | _tags("RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData")
DUMMIES: dict[str, Any] = {
    "AS": "000Y",
    "CS": "ANONYMOUS",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "DS": "0",
    "IS": "0",
    **dict.fromkeys(("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), "ANONYMOUS"),
}
IDENTIFIERS = _tags("PatientID OtherPatientIDs AccessionNumber MedicalRecordLocator AdmissionID PatientBirthDate")
TYPICALLY_ANNOTATED = frozenset({"ES", "GM", "OT", "RF", "SC", "US", "XA", "XC"})
SCREEN_COPIES = frozenset({"SCREEN SAVE", "SCREENSHOT", "REPORT"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What a Trust lets into its archive; instances of other modalities (reports, screenshots) are left out."""

    modalities: frozenset[str] = frozenset({"CT", "MR", "PT", "SEG"})


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose study it is, and for which project: what the pseudonyms are made from."""

    project_id: UUID
    accession_number: str


@dataclass(frozen=True, slots=True)
class DeidentificationReport:
    """What was done to a study: pseudonyms, files written, elements by action, instances left out by modality."""

    patient: str
    case: str
    study_instance_uid: str
    instances: int
    actions: dict[str, int]
    left_out: dict[str, int]


def deidentify_study(
    files: Iterable[Path], into: Path, subject: Subject, key: ProjectKey, policy: Policy
) -> tuple[list[Path], DeidentificationReport]:
    """Write the de-identified instances of one study to `into`, named by their new SOP Instance UID.

    Raises DeidentificationRefused if a file can't be parsed, an accepted instance may carry text in its pixels, the
    files are of several patients or studies, an identifier stands in text that must be kept, or nothing is left.
    """
    written: list[Path] = []
    actions: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    belongs: set[tuple[str, str]] = set()
    for file in files:
        with _refusing_what_cannot_be_parsed():
            dataset = dcmread(file)
            modality = str(dataset.get("Modality", "")) or "none"
            if modality not in policy.modalities:
                left_out[modality] += 1
                continue
            actions.update(deidentify(dataset, subject, key))
            belongs.add((str(dataset.PatientID), str(dataset.StudyInstanceUID)))
            target = into / f"{dataset.SOPInstanceUID}.dcm"
            dataset.save_as(target, enforce_file_format=True)
            written.append(target)
    if not written:
        raise DeidentificationRefused("no instance of an accepted modality is left")
    if len(belongs) > 1:
        raise DeidentificationRefused("the instances belong to several patients or studies")
    patient, study_instance_uid = belongs.pop()
    report = DeidentificationReport(
        patient, key.case(subject.accession_number), study_instance_uid, len(written), dict(actions), dict(left_out)
    )
    return written, report


def deidentify(dataset: Dataset, subject: Subject, key: ProjectKey) -> Counter[str]:
    """De-identify one instance in place; answers how many elements met which action. Raises DeidentificationRefused."""
    if may_show_text(dataset):
        raise DeidentificationRefused("the pixels may show text")
    patient_id = str(dataset.get("PatientID") or "")
    if not patient_id:
        raise DeidentificationRefused("an instance has no patient id")
    engine = _Engine(key, timedelta(days=key.days_back(patient_id)), Identifiers.of(dataset))
    engine.clean(dataset)
    _sign(dataset, patient=key.patient(patient_id), case=key.case(subject.accession_number), subject=subject)
    return engine.actions


def may_show_text(dataset: Dataset) -> bool:
    """Whether text may be burnt into the pixels: it says so, or is of a kind that often has some and says nothing."""
    claim = str(dataset.get("BurnedInAnnotation", ""))
    if claim in ("YES", "NO"):
        return claim == "YES"
    image_type = {str(value).upper() for value in dataset.get("ImageType") or ()}
    return (
        bool(image_type & SCREEN_COPIES)
        or dataset.get("Modality") in TYPICALLY_ANNOTATED
        or dataset.get("SOPClassUID") == SecondaryCaptureImageStorage
    )


@dataclass(frozen=True, slots=True)
class Identifiers:
    """By what a data set points to persons, at any depth, in lower case: parts of names, and numbers or dates."""

    names: frozenset[str]
    numbers: frozenset[str]

    @classmethod
    def of(cls, dataset: Dataset) -> "Identifiers":
        names: set[str] = set()
        numbers: set[str] = set()
        for element in _every_element(dataset):
            if element.VR == "PN":
                names.update(part for name in _values(element) for part in re.split(r"[\s^=,.]+", str(name).lower()))
            elif element.tag in IDENTIFIERS:
                numbers.update(str(value).strip().lower() for value in _values(element))
        return cls(*(frozenset(v for v in found if len(v) >= SHORTEST_IDENTIFIER) for found in (names, numbers)))


class _Engine:
    def __init__(self, key: ProjectKey, shift: timedelta, identifiers: Identifiers) -> None:
        self.key = key
        self.shift = shift
        self.actions: Counter[str] = Counter()
        # A defined term (CS) may well equal a name, such as HEAD; a text of several words may not hold one.
        self.in_text = _any_word(identifiers.names | identifiers.numbers)
        self.in_term = _any_word(identifiers.numbers)

    def clean(self, dataset: Dataset) -> None:
        for element in list(dataset):
            action = self._act(dataset, element)
            self.actions[action] += 1

    def _act(self, dataset: Dataset, element: DataElement) -> Action:
        tag = element.tag
        if tag in EXCEPTED:
            return self._keep(element)
        if _must_go(element):
            del dataset[tag]
            return "removed"
        if tag in EMPTIED:
            element.value = DicomSequence() if element.VR == "SQ" else None
            return "emptied"
        if tag in REPLACED and element.VR in DUMMIES:
            element.value = DUMMIES[element.VR]
            return "replaced"
        return self._keep(element)

    def _keep(self, element: DataElement) -> Action:
        """Keep an element, with what is inside it cleaned, mapped or shifted."""
        if element.VR == "SQ":
            for item in element.value:
                self.clean(item)
            return "kept"
        if element.VR == "UI":
            _change(element, self.key.uid)
            return "uid-mapped"
        if element.VR in ("DA", "DT"):
            _change(element, self._shifted)
            return "date-shifted"
        if element.VR == "AS":
            _change(element, _capped_age)
        self._refuse_identifier(element)
        return "kept"

    def _shifted(self, value: str) -> str:
        try:
            moved = datetime.strptime(value[:8], "%Y%m%d") - self.shift  # noqa: DTZ007 - a DICOM date has no zone
        except (ValueError, OverflowError):
            return ""
        return f"{moved:%Y%m%d}".rjust(8, "0") + value[8:]

    def _refuse_identifier(self, element: DataElement) -> None:
        pattern = self.in_text if element.VR in TEXTS else self.in_term if element.VR == "CS" else None
        if pattern and any(pattern.search(str(value)) for value in _values(element)):
            raise DeidentificationRefused(f"{element.keyword} repeats an identifier of a person")


def _any_word(words: frozenset[str]) -> re.Pattern[str] | None:
    if not words:
        return None
    return re.compile(rf"(?<![^\W_])({'|'.join(map(re.escape, sorted(words)))})(?![^\W_])", re.IGNORECASE)


def _must_go(element: DataElement) -> bool:
    tag = element.tag
    return (
        tag.is_private
        or tag in REMOVED
        or any(tag.group in groups for groups in CURVES_AND_OVERLAYS)
        or (element.VR in TEXTS and tag not in NEEDED_TEXTS | EMPTIED | REPLACED)
        or (element.VR in BINARIES and tag not in NEEDED_BINARIES)
    )


def _sign(dataset: Dataset, *, patient: str, case: str, subject: Subject) -> None:
    """Put in the pseudonyms, the project, and what was done."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = dataset.PatientName = patient
    dataset.PatientBirthDate = ""
    dataset.AccessionNumber = case
    dataset.ClinicalTrialSponsorName = "FLIP"
    dataset.ClinicalTrialProtocolID = str(subject.project_id)
    dataset.ClinicalTrialSubjectID = patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = [_coded(*code) for code in METHOD_CODES]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    transfer_syntax = dataset.file_meta.TransferSyntaxUID
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.preamble = bytes(128)


@contextmanager
def _refusing_what_cannot_be_parsed() -> Iterator[None]:
    try:
        yield
    except (InvalidDicomError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError, EOFError) as error:
        raise DeidentificationRefused(f"an instance can't be parsed ({type(error).__name__})") from None


def _coded(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _capped_age(value: str) -> str:
    years = re.fullmatch(r"(\d{3})Y", value)
    return f"{min(int(years[1]), OLDEST_AGE_YEARS):03d}Y" if years else value


def _change(element: DataElement, change: Callable[[str], str]) -> None:
    values = [change(str(value)) for value in _values(element)]
    element.value = values[0] if len(values) == 1 else values or None


def _values(element: DataElement) -> Sequence[Any]:
    if element.is_empty:
        return ()
    return element.value if element.VM > 1 else (element.value,)


def _every_element(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _every_element(item)
