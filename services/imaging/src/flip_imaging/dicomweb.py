"""DICOMweb (PS3.18) as this service speaks it: one session a call, each with a deadline, errors by class of reason."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from urllib3.exceptions import ReadTimeoutError

from flip_imaging.ports import ImportProblem, RequestRefused, StudyIncomplete, TimedOut

TALKATIVE = ("dicomweb_client", "urllib3", "pydicom", "highdicom")


def silence_libraries() -> None:
    """Keep the libraries' own logs and warnings off: they hold UIDs, accession numbers and values of elements."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=UserWarning)


@dataclass(frozen=True, slots=True)
class DicomWebServer:
    """Where a DICOMweb server is and how to log in.

    `connect_s` bounds making a connection, `silence_s` a pause in an answer, `transfer_s` one whole transfer.
    """

    url: str
    username: str
    password: str = field(repr=False)
    ca_file: Path | None = None
    connect_s: float = 5
    silence_s: float = 60
    transfer_s: float = 1800

    @contextmanager
    def session(self, unreachable: type[ImportProblem]) -> Iterator[requests.Session]:
        """A session with the server. What goes wrong inside comes out as an ImportProblem."""
        with requests.Session() as session, _typed(unreachable):
            session.auth = (self.username, self.password)
            if self.ca_file is not None:
                session.verify = str(self.ca_file)
            yield session

    @contextmanager
    def client(self, unreachable: type[ImportProblem]) -> Iterator[DICOMwebClient]:
        """A DICOMweb client that never retries by itself: trying again is the study's own business."""
        with self.session(unreachable) as session:
            client = DICOMwebClient(self.url, session=session, timeout=(self.connect_s, self.silence_s))
            client.set_http_retry_params(retry=False)
            yield client


@contextmanager
def _typed(unreachable: type[ImportProblem]) -> Iterator[None]:
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        if status in (408, 429) or status >= 500:
            raise unreachable(f"the server answered {status}") from None
        raise RequestRefused(f"the server answered {status}") from None
    except requests.Timeout:
        raise TimedOut("the server didn't answer in time") from None
    except requests.RequestException as error:
        if any(isinstance(part, ReadTimeoutError) for part in error.args):
            raise TimedOut("the server stopped in the middle of an answer") from None
        raise unreachable(f"the connection failed ({type(error).__name__})") from None


def retrieve_study(client: DICOMwebClient, study_instance_uid: str, into: Path, transfer_s: float) -> list[Path]:
    """WADO-RS: write each instance of a study to `into`, as it comes. Raises TimedOut or StudyIncomplete."""
    deadline = time.monotonic() + transfer_s
    files: list[Path] = []
    try:
        for instance in client.iter_study(study_instance_uid):
            if time.monotonic() > deadline:
                raise TimedOut("the transfer took too long")
            files.append(save(instance, into / f"{len(files):06d}.dcm"))
    except (InvalidDicomError, ValueError, AttributeError) as error:
        raise StudyIncomplete(f"an instance can't be read ({type(error).__name__})") from None
    return files


def save(instance: Dataset, file: Path) -> Path:
    """Write an instance as a DICOM file."""
    instance.save_as(file, enforce_file_format=True)
    return file
