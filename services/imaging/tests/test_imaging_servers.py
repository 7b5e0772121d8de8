"""PACS and archive on real Orthancs: what they bring and keep, and how each failure is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from flip_imaging.archive import OrthancArchive
from flip_imaging.dicomweb import DicomWebServer
from flip_imaging.pacs import DicomWebPacs
from flip_imaging.ports import (
    FoundStudy,
    ImportProblem,
    PacsUnreachable,
    RequestRefused,
    StudyIncomplete,
    StudyNotFound,
    TimedOut,
)
from flip_imaging.testing import Scan, make_scan
from flip_local.testing import Orthanc, TrustImages
from pydicom import dcmread

pytestmark = pytest.mark.parts


def server(orthanc: Orthanc) -> DicomWebServer:
    return DicomWebServer(orthanc.dicom_web, orthanc.user, orthanc.password)


@pytest.fixture
async def stored(orthanc: TrustImages, tmp_path: Path) -> Scan:
    """A scan of its own in the PACS."""
    scan = make_scan(4, uuid4().hex[:6].upper())
    (tmp_path / "sent").mkdir()
    await OrthancArchive(server(orthanc.pacs)).store(scan.write(tmp_path / "sent"))
    return scan


@pytest.mark.requirement("IMG-1")
async def test_a_study_is_found_by_its_accession_number_and_comes_whole(
    orthanc: TrustImages, stored: Scan, tmp_path: Path
) -> None:
    pacs = DicomWebPacs(server(orthanc.pacs))
    found = await pacs.find(stored.patient.accession)
    files = await pacs.fetch(found, tmp_path)
    assert found == FoundStudy(stored.series[0].StudyInstanceUID, len(stored.series))
    received = {dcmread(file).SOPInstanceUID: dcmread(file).PixelData for file in files}
    assert received == {image.SOPInstanceUID: image.PixelData for image in stored.series}


Ask = Callable[[DicomWebServer, Scan, Path], Awaitable[object]]


def finding(accession_number: str | None = None) -> Ask:
    return lambda pacs, scan, _: DicomWebPacs(pacs).find(accession_number or scan.patient.accession)


def fetching(study_instance_uid: str | None = None, instances: int = 1) -> Ask:
    return lambda pacs, scan, into: DicomWebPacs(pacs).fetch(
        FoundStudy(study_instance_uid or scan.series[0].StudyInstanceUID, instances), into
    )


@pytest.mark.requirement("IMG-2")
@pytest.mark.parametrize(
    ("problem", "change", "ask"),
    [
        (StudyNotFound, {}, finding("no-such-number")),
        (StudyNotFound, {}, finding("*")),
        (RequestRefused, {"password": "wrong"}, finding()),
        (PacsUnreachable, {"url": "http://127.0.0.1:1/dicom-web"}, finding()),
        (StudyIncomplete, {}, fetching(instances=99)),
        (RequestRefused, {}, fetching(study_instance_uid="2.25.404")),
        (TimedOut, {"transfer_s": 0}, fetching()),
    ],
)
async def test_each_failure_of_the_pacs_is_told_by_its_class_and_without_an_identifier(
    orthanc: TrustImages,
    stored: Scan,
    tmp_path: Path,
    problem: type[ImportProblem],
    change: dict[str, object],
    ask: Ask,
) -> None:
    with pytest.raises(problem) as caught:
        await ask(replace(server(orthanc.pacs), **change), stored, tmp_path)
    told = f"{caught.value} {caught.value.__cause__}"
    assert [word for word in (stored.patient.accession, stored.series[0].StudyInstanceUID) if word in told] == []


@pytest.mark.requirement("IMG-2")
async def test_a_pacs_that_falls_silent_is_told_as_timed_out(stored: Scan, tmp_path: Path) -> None:
    async def never_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()
        writer.close()

    listener = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    silent = DicomWebServer(f"http://127.0.0.1:{port}/dicom-web", "flip", "flip", silence_s=0.2)
    with pytest.raises(TimedOut):
        await DicomWebPacs(silent).find(stored.patient.accession)
    listener.close()


async def test_the_archive_keeps_an_instance_once_and_deletes_what_it_is_told(
    orthanc: TrustImages, tmp_path: Path
) -> None:
    archive = OrthancArchive(server(orthanc.archive))
    scan = make_scan(5, uuid4().hex[:6].upper())
    case = scan.patient.accession
    files = scan.write(tmp_path)
    await archive.store(files)
    await archive.store(files)
    found = await DicomWebPacs(server(orthanc.archive)).find(case)
    assert found.instances == len(files)
    await archive.delete_case(case)
    await archive.delete_case(case)
    with pytest.raises(StudyNotFound):
        await DicomWebPacs(server(orthanc.archive)).find(case)


async def test_a_series_is_deleted_without_the_rest_of_its_study(orthanc: TrustImages, tmp_path: Path) -> None:
    archive = OrthancArchive(server(orthanc.archive))
    scan = make_scan(6, uuid4().hex[:6].upper())
    await archive.store([*scan.write(tmp_path), scan.write_segmentation(tmp_path / "seg.dcm")])
    await archive.delete_series(scan.segmentation.SeriesInstanceUID)
    found = await DicomWebPacs(server(orthanc.archive)).find(scan.patient.accession)
    assert found.instances == len(scan.series)
    await archive.delete_case(scan.patient.accession)
