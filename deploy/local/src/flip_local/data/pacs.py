"""Fills a Trust's PACS (Orthanc) so that it holds exactly the synthetic studies under their accession numbers."""

from types import TracebackType
from typing import Self

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom import dcmread

from flip_local.data.people import Study
from flip_local.data.studies import Made

_TIMEOUT_S = 60


class PacsError(RuntimeError):
    """The PACS did not keep what it was sent."""


class Pacs:
    """A PACS that is Orthanc: DICOMweb to look and store, its REST interface to remove what is out of date."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._session: requests.Session = create_session_from_user_pass(username=user, password=password)
        self._dicomweb = DICOMwebClient(f"{self._url}/dicom-web", session=self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def fill(self, made: Made) -> int:
        """Store what is missing, remove other studies with the same accession numbers; return how many images came."""
        return sum(self._reconcile(study, made) for study in made.studies())

    def _reconcile(self, study: Study, made: Made) -> int:
        self._remove_other_studies(study)
        missing = set(study.instance_uids) - self._instance_uids(study)
        if not missing:
            return 0
        images = [dcmread(path) for path in made.series(study.accession)]
        self._dicomweb.store_instances([image for image in images if image.SOPInstanceUID in missing])
        if lost := set(study.instance_uids) - self._instance_uids(study):
            raise PacsError(f"{self._url} kept {len(missing) - len(lost)} of {len(missing)} images of a study")
        return len(missing)

    def _instance_uids(self, study: Study) -> set[str]:
        found = self._dicomweb.search_for_instances(study.study_uid, fields=["SOPInstanceUID"])
        return {instance["00080018"]["Value"][0] for instance in found}

    def _remove_other_studies(self, study: Study) -> None:
        query = {"Level": "Study", "Expand": True, "Query": {"AccessionNumber": study.accession}}
        answer = self._session.post(f"{self._url}/tools/find", json=query, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        for found in answer.json():
            if found["MainDicomTags"]["StudyInstanceUID"] != study.study_uid:
                self._session.delete(f"{self._url}/studies/{found['ID']}", timeout=_TIMEOUT_S).raise_for_status()
