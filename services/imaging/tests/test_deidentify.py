"""De-identification: nothing identifying is left at any depth, and what an image needs still holds together."""

from collections.abc import Iterator
from copy import deepcopy
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flip_imaging.deidentify import (
    EMPTIED,
    NEEDED_BINARIES,
    REMOVED,
    REPLACED,
    TEXTS,
    DeidentificationReport,
    Policy,
    Subject,
    deidentify,
    deidentify_study,
    may_show_text,
)
from flip_imaging.ports import DeidentificationRefused
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.testing import Scan, make_scan
from flip_local.data.people import patients
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import SecondaryCaptureImageStorage

pytestmark = pytest.mark.requirement("IMG-4")

PROJECT = UUID("0197a000-0000-7000-8000-000000000001")
OTHER_PROJECT = UUID("0197a000-0000-7000-8000-000000000002")
TRUST_KEY = bytes(range(32))
KEY = ProjectKey.derive(TRUST_KEY, PROJECT)
PERSON = patients("KCH")[0]
PLANTED_WORDS = (PERSON.family_name, PERSON.given_name, PERSON.hospital_number, PERSON.accession)
PLANTED_UID = "1.2.826.0.1.3680043.10.42.777.31337"
PLANTED_DATE = f"{PERSON.birth_date:%Y%m%d}"


def everything(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Name and text of each value at every depth, the file's meta information included."""
    for element in [*getattr(dataset, "file_meta", ()), *dataset]:
        if element.VR == "SQ":
            for item in element.value:
                yield from everything(item)
        elif element.tag != 0x7FE00010:
            yield str(element.keyword or element.tag), str(element.value)


def texts(dataset: Dataset) -> str:
    return "\n".join(text for _, text in everything(dataset))


ORIGINAL = make_scan(0).series[0]
SUBJECT = Subject(PROJECT, PERSON.accession)


def subject(scan: Scan, project: UUID = PROJECT) -> Subject:
    return Subject(project, scan.patient.accession)


def deidentified(scan: Scan, tmp_path: Path) -> tuple[list[Dataset], Dataset, DeidentificationReport]:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    files = [*scan.write(folder), scan.write_segmentation(folder / "seg.dcm")]
    written, report = deidentify_study(files, tmp_path / "out", subject(scan), KEY, Policy())
    datasets: list[Dataset] = [dcmread(file) for file in written]
    return datasets[:-1], datasets[-1], report


def test_nothing_planted_in_a_hospitals_study_survives(tmp_path: Path) -> None:
    original = make_scan(0)
    uids = {str(image[k].value) for image in original.series for k in ("SOPInstanceUID", "StudyInstanceUID")}
    images, segmentation, _ = deidentified(original, tmp_path)
    assert len(images) == len(original.series)
    for dataset in [*images, segmentation]:
        found = texts(dataset)
        assert [planted for planted in original.planted | uids if planted.lower() in found.lower()] == []
        assert not any(element.tag.is_private for element in dataset.iterall())


def test_a_segmentation_still_points_to_its_images_and_names_its_structures(tmp_path: Path) -> None:
    images, segmentation, _ = deidentified(make_scan(0), tmp_path)
    instances = {str(image.SOPInstanceUID) for image in images}
    referenced = {text for name, text in everything(segmentation) if name == "ReferencedSOPInstanceUID"}
    assert referenced
    assert referenced <= instances
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == images[0].SeriesInstanceUID
    assert segmentation.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    assert segmentation.StudyInstanceUID == images[0].StudyInstanceUID
    assert segmentation.PatientID == images[0].PatientID
    labels = [item.SegmentLabel for item in segmentation.SegmentSequence]
    assert labels == ["striatum", "thalamus", "hippocampus_amygdala"]


def test_pixels_and_geometry_stay(tmp_path: Path) -> None:
    original = make_scan(1)
    images, _, _ = deidentified(original, tmp_path)
    for before, after in zip(original.series, images, strict=True):
        assert after.PixelData == before.PixelData
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PatientSex"):
            assert after[keyword].value == before[keyword].value


def test_the_instances_say_what_was_done_and_for_which_project(tmp_path: Path) -> None:
    images, segmentation, report = deidentified(make_scan(0), tmp_path)
    for dataset in [*images, segmentation]:
        assert dataset.PatientIdentityRemoved == "YES"
        codes = [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113107", "113108"]
        assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
        assert dataset.ClinicalTrialProtocolID == str(PROJECT)
        assert (dataset.PatientID, dataset.AccessionNumber) == (report.patient, report.case)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert report.instances == len(images) + 1
    assert all(report.actions[action] > 0 for action in ("removed", "emptied", "uid-mapped", "date-shifted", "kept"))


def test_twice_gives_the_same_bytes_and_another_project_shares_nothing(tmp_path: Path) -> None:
    files = make_scan(0).write(tmp_path)
    runs: dict[str, list[Path]] = {}
    for name, project in (("first", PROJECT), ("again", PROJECT), ("other", OTHER_PROJECT)):
        into = tmp_path / name
        into.mkdir()
        key = ProjectKey.derive(TRUST_KEY, project)
        runs[name], _ = deidentify_study(files, into, subject(make_scan(0), project), key, Policy())
    assert [file.read_bytes() for file in runs["first"]] == [file.read_bytes() for file in runs["again"]]
    identifying = (
        "PatientID",
        "AccessionNumber",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "StudyDate",
    )
    here, there = dcmread(runs["first"][0]), dcmread(runs["other"][0])
    assert [keyword for keyword in identifying if here[keyword].value == there[keyword].value] == []


SEQUENCES = [
    Tag(keyword)
    for keyword in (
        *("ReferencedImageSequence", "SourceImageSequence", "ReferencedSeriesSequence", "AnatomicRegionSequence"),
        *("SharedFunctionalGroupsSequence", "PlanePositionSequence", "DerivationImageSequence", "ContentSequence"),
        *("RequestAttributesSequence", "PersonIdentificationCodeSequence", "MRReceiveCoilSequence"),
    )
]


def plant(vr: str, word: str) -> Any:
    """A value of this VR that gives the person away, None where the VR can hold none."""
    if vr in TEXTS:
        return word
    return {
        "OB": word.encode(),
        "OW": word.encode(),
        "UN": word.encode(),
        "DA": PLANTED_DATE,
        "DT": PLANTED_DATE + "101500",
        "UI": PLANTED_UID,
    }.get(vr)


PLACES = [
    (tag, entry[0])
    for tag, entry in DicomDictionary.items()
    if plant(entry[0], "x") is not None and 0x0008 <= tag >> 16 < 0x7FE0 and Tag(tag) not in NEEDED_BINARIES
]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_gives_a_person_away_never_survives_wherever_it_is_planted(data: st.DataObject) -> None:
    dataset = deepcopy(ORIGINAL)
    for _ in range(data.draw(st.integers(1, 5), label="plants")):
        tag, vr = data.draw(st.sampled_from(PLACES), label="tag")
        target = dataset
        for sequence in data.draw(st.lists(st.sampled_from(SEQUENCES), max_size=4), label="path"):
            item = Dataset()
            target.add_new(sequence, "SQ", Sequence([item]))
            target = item
        target.add_new(tag, vr, plant(vr, data.draw(st.sampled_from(PLANTED_WORDS), label="word")))
        target.add_new(0x00990010, "LO", PERSON.family_name)
    try:
        deidentify(dataset, SUBJECT, KEY)
    except DeidentificationRefused:
        return  # it stood in a text that must be kept
    found = texts(dataset).lower()
    assert [word for word in (*PLANTED_WORDS, PLANTED_UID, PLANTED_DATE) if word.lower() in found] == []


def test_a_text_that_no_image_needs_goes_even_where_the_profile_does_not_know_it() -> None:
    dataset = deepcopy(ORIGINAL)
    dataset.PatientBreedDescription = "seen by the consultant of ward six"
    assert dataset["PatientBreedDescription"].tag not in REMOVED | EMPTIED | REPLACED
    deidentify(dataset, SUBJECT, KEY)
    assert "ward six" not in texts(dataset)


def test_a_name_in_a_text_that_must_be_kept_refuses_the_study() -> None:
    dataset = deepcopy(ORIGINAL)
    dataset.AnatomicRegionSequence = [Dataset()]
    dataset.AnatomicRegionSequence[0].CodeMeaning = f"Brain of {PERSON.given_name}"
    with pytest.raises(DeidentificationRefused, match="CodeMeaning"):
        deidentify(dataset, SUBJECT, KEY)


def test_intervals_between_a_persons_dates_stay_and_dates_move_into_the_past() -> None:
    first, second = deepcopy(ORIGINAL), deepcopy(ORIGINAL)
    first.StudyDate, second.StudyDate = "20240301", "20240229"
    for dataset in (first, second):
        deidentify(dataset, SUBJECT, KEY)
    moved = [datetime.strptime(dataset.StudyDate, "%Y%m%d").date() for dataset in (first, second)]  # noqa: DTZ007
    assert moved[0] - moved[1] == timedelta(days=1)
    assert moved[0] < date(2024, 3, 1)


def test_an_age_above_ninety_is_told_as_ninety() -> None:
    dataset = deepcopy(ORIGINAL)
    dataset.PatientAge = "097Y"
    deidentify(dataset, SUBJECT, KEY)
    assert dataset.PatientAge == "090Y"


@pytest.mark.parametrize(
    ("shows", "values"),
    [
        (True, {"BurnedInAnnotation": "YES"}),
        (True, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        (True, {"Modality": "US"}),
        (True, {"SOPClassUID": SecondaryCaptureImageStorage}),
        (False, {"Modality": "US", "BurnedInAnnotation": "NO"}),
        (False, {"ImageType": ["DERIVED", "SECONDARY"]}),
    ],
)
def test_pixels_that_may_show_text_are_known(shows: bool, values: dict[str, Any]) -> None:
    dataset = deepcopy(ORIGINAL)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    assert may_show_text(dataset) is shows


def test_burnt_in_text_refuses_the_whole_study(tmp_path: Path) -> None:
    scan = make_scan(0)
    scan.series[3].BurnedInAnnotation = "YES"
    with pytest.raises(DeidentificationRefused, match="pixels"):
        deidentify_study(scan.write(tmp_path), tmp_path, SUBJECT, KEY, Policy())


def test_reports_and_screenshots_are_left_out_and_counted(tmp_path: Path) -> None:
    scan = make_scan(0)
    scan.series[0].Modality, scan.series[1].Modality = "SR", "OT"
    (tmp_path / "out").mkdir()
    written, report = deidentify_study(scan.write(tmp_path), tmp_path / "out", SUBJECT, KEY, Policy())
    assert len(written) == len(scan.series) - 2
    assert report.left_out == {"SR": 1, "OT": 1}


def test_a_study_of_two_patients_is_refused(tmp_path: Path) -> None:
    scan = make_scan(0)
    scan.series[3].PatientID = "someone-else"
    with pytest.raises(DeidentificationRefused, match="several patients"):
        deidentify_study(scan.write(tmp_path), tmp_path, SUBJECT, KEY, Policy())


def test_a_file_that_is_no_dicom_is_refused_without_its_content_in_the_message(tmp_path: Path) -> None:
    file = tmp_path / "letter.dcm"
    file.write_text(f"Dear {PERSON.given_name} {PERSON.family_name}")
    with pytest.raises(DeidentificationRefused) as caught:
        deidentify_study([file], tmp_path, SUBJECT, KEY, Policy())
    assert PERSON.family_name not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        ProjectKey.derive(bytes(31), PROJECT)
