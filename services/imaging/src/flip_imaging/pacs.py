"""The Trust's PACS by DICOMweb: QIDO-RS finds a study by its accession number, WADO-RS brings it."""

import asyncio
from pathlib import Path
from typing import Any

from flip_imaging.dicomweb import DicomWebServer, retrieve_study
from flip_imaging.ports import FoundStudy, PacsUnreachable, StudyIncomplete, StudyNotFound

ACCESSION_NUMBER, STUDY_INSTANCE_UID, STUDY_INSTANCES = "00080050", "0020000D", "00201208"


class DicomWebPacs:
    """A `PacsSource` over DICOMweb."""

    def __init__(self, server: DicomWebServer) -> None:
        self._server = server

    async def find(self, accession_number: str) -> FoundStudy:
        return await asyncio.to_thread(self._find, accession_number)

    async def fetch(self, study: FoundStudy, into: Path) -> list[Path]:
        return await asyncio.to_thread(self._fetch, study, into)

    def _find(self, accession_number: str) -> FoundStudy:
        with self._server.client(PacsUnreachable) as client:
            answers = client.search_for_studies(
                search_filters={"AccessionNumber": accession_number}, fields=["NumberOfStudyRelatedInstances"]
            )
        # A server may match by wild card or ignore the filter: only an equal number is a match.
        found = [answer for answer in answers if _value(answer, ACCESSION_NUMBER) == accession_number]
        if len(found) != 1:
            raise StudyNotFound(f"the PACS has {len(found)} studies with this accession number")
        instances = _value(found[0], STUDY_INSTANCES)
        return FoundStudy(str(_value(found[0], STUDY_INSTANCE_UID)), None if instances is None else int(instances))

    def _fetch(self, study: FoundStudy, into: Path) -> list[Path]:
        with self._server.client(PacsUnreachable) as client:
            files = retrieve_study(client, study.study_instance_uid, into, self._server.transfer_s)
        if not files or (study.instances is not None and len(files) < study.instances):
            raise StudyIncomplete(f"{len(files)} of {study.instances} instances arrived")
        return files


def _value(answer: dict[str, Any], tag: str) -> Any | None:
    """The first value of an attribute in DICOM JSON (PS3.18 F.2), None where it is absent or empty."""
    values = answer.get(tag, {}).get("Value") or [None]
    return values[0]
