"""A patient as DICOM: an MR series as a scanner would send it, and a SEG of the labels as an annotator would.

The series carries identifying values wherever hospitals leave them: in plain attributes, deep inside sequences and in
private elements. `planted_values` lists them, so that a test of de-identification knows what must be gone.
"""

from collections.abc import Sequence
from datetime import date
from typing import TypeVar

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import DA, DT, TM

from flip_local.data.images import STRUCTURES, Volume
from flip_local.data.people import PROTOCOL, Patient

_Voxel = TypeVar("_Voxel", bound=np.generic)

_OPERATOR = "Ravensworth^Ottoline"
_REFERRER = "Quillfeather^Septimus"
_ANNOTATOR = "Marchbanks^Isolde"
_WARD_PHONE = "020 7946 0958"
_ANATOMY = {
    "striatum": ("31428008", "Corpus striatum"),
    "thalamus": ("42695009", "Thalamus"),
    "hippocampus_amygdala": ("3937008", "Hippocampus"),
}


def planted_values(patient: Patient) -> tuple[str, ...]:
    """Every identifying text in the patient's MR series and SEG: none may be found after de-identification."""
    people = (_OPERATOR, _REFERRER, _ANNOTATOR)
    return (
        patient.family_name,
        patient.given_name,
        patient.hospital_number,
        patient.accession,
        patient.hospital.name,
        _national_number(patient),
        _address(patient),
        _phone(patient),
        _WARD_PHONE,
        *(part for person in people for part in person.split("^")),
    )


def mr_series(patient: Patient, volume: Volume, edition: str) -> list[Dataset]:
    """One MR image a slice, from the lowest up. `edition` names the generator: other content never reuses a UID."""
    frames = _frames(volume.image)
    return [_mr_image(patient, volume, edition, index, frame) for index, frame in enumerate(frames)]


def label_segmentation(
    patient: Patient, series: Sequence[Dataset], volume: Volume, edition: str
) -> hd.seg.Segmentation:
    """The labels of the series as a binary SEG with one segment a structure."""
    seg = hd.seg.Segmentation(
        source_images=series,
        pixel_array=np.ascontiguousarray(_frames(volume.label)),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, name) for number, name in STRUCTURES.items()],
        series_instance_uid=_uid(patient, edition, "label-series"),
        series_number=900,
        sop_instance_uid=_uid(patient, edition, "label"),
        instance_number=1,
        manufacturer="Labels by hand",
        manufacturer_model_name="Atlas regions",
        software_versions="1",
        device_serial_number="1",
        content_creator_name=_ANNOTATOR,
        series_description=f"Deep nuclei of {patient.given_name} {patient.family_name}",
        omit_empty_frames=True,
    )
    _without_chance(seg, patient, edition)
    return seg


def _without_chance(seg: hd.seg.Segmentation, patient: Patient, edition: str) -> None:
    """Replace what the library takes from the clock and from chance, so that the same input gives the same file."""
    seg.InstanceCreationDate = seg.ContentDate = DA(patient.scanned_at.date())
    seg.InstanceCreationTime = seg.ContentTime = TM(patient.scanned_at.time())
    for equipment in seg.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(patient.scanned_at)
    organization = _uid(patient, edition, "label-dimensions")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def _mr_image(patient: Patient, volume: Volume, edition: str, index: int, frame: NDArray[np.uint16]) -> Dataset:
    image = Dataset()
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = _uid(patient, edition, f"image-{index}")
    image.file_meta = _file_meta(image)
    image.SpecificCharacterSet = "ISO_IR 192"
    _describe_patient(image, patient)
    _describe_study(image, patient, edition)
    _describe_acquisition(image, patient)
    _place(image, volume, index)
    _set_pixels(image, frame)
    _plant(image, patient)
    return image


def _file_meta(image: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _describe_patient(image: Dataset, patient: Patient) -> None:
    image.PatientName = f"{patient.family_name}^{patient.given_name}"
    image.PatientID = patient.hospital_number
    image.PatientBirthDate = patient.birth_date.strftime("%Y%m%d")
    image.PatientSex = patient.sex
    image.PatientAge = f"{_full_years(patient.birth_date, patient.scanned_at.date()):03d}Y"


def _describe_study(image: Dataset, patient: Patient, edition: str) -> None:
    image.StudyInstanceUID = _uid(patient, edition, "study")
    image.SeriesInstanceUID = _uid(patient, edition, "series")
    image.FrameOfReferenceUID = _uid(patient, edition, "frame-of-reference")
    image.PositionReferenceIndicator = None
    image.StudyID = str(patient.number + 1)
    image.AccessionNumber = patient.accession
    image.StudyDescription = "MR HEAD"
    image.SeriesDescription = "T1 3D 2 mm"
    image.SeriesNumber = 2
    image.ReferringPhysicianName = _REFERRER
    day, time = patient.scanned_at.strftime("%Y%m%d"), patient.scanned_at.strftime("%H%M%S")
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = day
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = time


def _describe_acquisition(image: Dataset, patient: Patient) -> None:
    image.Modality = "MR"
    image.Manufacturer = patient.hospital.manufacturer
    image.ManufacturerModelName = patient.hospital.scanner
    image.DeviceSerialNumber = str(10_000 + patient.hospital.seed)
    image.SoftwareVersions = "1"
    image.InstitutionName = patient.hospital.name
    image.StationName = f"{patient.hospital.code}MR1"
    image.ProtocolName = PROTOCOL
    image.BodyPartExamined = "HEAD"
    image.PatientPosition = "HFS"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    image.ScanningSequence = "GR"
    image.SequenceVariant = "SP"
    image.ScanOptions = None
    image.MRAcquisitionType = "3D"
    image.MagneticFieldStrength = 3.0
    image.RepetitionTime = 9.0
    image.EchoTime = 4.0
    image.FlipAngle = 8.0
    image.EchoTrainLength = 1


def _place(image: Dataset, volume: Volume, index: int) -> None:
    """Put the slice where it was in the head: rows run to the back, columns to the left (DICOM's LPS)."""
    columns, rows, _ = volume.image.shape
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    right, front, top = (volume.affine @ [columns - 1, rows - 1, index, 1])[:3]
    image.InstanceNumber = index + 1
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [float(-right), float(-front), float(top)]
    image.SliceLocation = float(top)
    image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    image.SliceThickness = image.SpacingBetweenSlices = float(spacing[2])


def _set_pixels(image: Dataset, frame: NDArray[np.uint16]) -> None:
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = frame.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.WindowCenter, image.WindowWidth = 400, 800
    image.PixelData = np.ascontiguousarray(frame, dtype="<u2").tobytes()


def _plant(image: Dataset, patient: Patient) -> None:
    """Leave identifying values in the places where hospitals leave them."""
    plain_name = f"{patient.given_name} {patient.family_name}"
    image.OperatorsName = _OPERATOR
    image.PatientAddress = _address(patient)
    image.PatientTelephoneNumbers = _phone(patient)
    image.PatientComments = f"{plain_name} prefers to be called on {_phone(patient)}"
    image.ImageComments = f"Repeat for {patient.hospital_number}"
    image.OtherPatientIDsSequence = [
        _item(PatientID=_national_number(patient), TypeOfPatientID="TEXT", IssuerOfPatientID=patient.hospital.name)
    ]
    image.RequestAttributesSequence = [
        _item(
            RequestedProcedureID=patient.accession,
            ScheduledProcedureStepID="1",
            RequestedProcedureDescription=f"MR head for {plain_name}",
            ScheduledProtocolCodeSequence=[
                _item(
                    CodeValue="T1",
                    CodingSchemeDesignator="99LOCAL",
                    CodeMeaning=f"T1 for {patient.hospital_number}",
                )
            ],
        )
    ]
    image.ReferringPhysicianIdentificationSequence = [
        _item(
            InstitutionName=patient.hospital.name,
            PersonTelephoneNumbers=_WARD_PHONE,
            PersonIdentificationCodeSequence=[
                _item(CodeValue="R1", CodingSchemeDesignator="99LOCAL", CodeMeaning=_REFERRER)
            ],
        )
    ]
    private = image.private_block(0x0019, f"{patient.hospital.manufacturer} 1.0", create=True)
    private.add_new(0x01, "LO", plain_name)
    private.add_new(0x02, "SQ", [_item(PatientName=str(image.PatientName), PatientID=patient.hospital_number)])


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _segment(number: int, name: str) -> hd.seg.SegmentDescription:
    code, meaning = _ANATOMY[name]
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=hd.sr.CodedConcept(code, "SCT", meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def _frames(values: NDArray[_Voxel]) -> NDArray[_Voxel]:
    """(i, j, k) to the right, front and top -> (slice, row, column) to the top, back and left."""
    return values.transpose(2, 1, 0)[:, ::-1, ::-1]


def _uid(patient: Patient, edition: str, role: str) -> str:
    return generate_uid(entropy_srcs=[edition, patient.case, role])


def _national_number(patient: Patient) -> str:
    return f"999 {patient.hospital.seed:03d} {1000 + patient.number}"


def _address(patient: Patient) -> str:
    return f"{patient.number + 11} Larkspur Terrace"


def _phone(patient: Patient) -> str:
    return f"020 7946 0{100 + patient.number}"


def _full_years(birth: date, on: date) -> int:
    return on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))
