"""The Trust's research archive on Orthanc: STOW-RS and QIDO-RS, and Orthanc's own API to delete (DICOMweb has none)."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydicom import dcmread

from flip_imaging.dicomweb import DicomWebServer
from flip_imaging.ports import ArchiveUnreachable, RequestRefused

LARGEST_REQUEST_BYTES = 64 << 20


class OrthancArchive:
    """An `ImageStore` on an Orthanc with its DICOMweb plugin under `/dicom-web`."""

    def __init__(self, server: DicomWebServer) -> None:
        root, plugin, rest = server.url.rstrip("/").partition("/dicom-web")
        if not plugin or rest:
            raise ValueError("the archive's URL must end in /dicom-web")
        self._server = server
        self._root_url = root

    async def store(self, files: Sequence[Path]) -> None:
        await asyncio.to_thread(self._store, files)

    async def delete_series(self, series_instance_uid: str) -> None:
        await asyncio.to_thread(self._delete, "series", {"SeriesInstanceUID": series_instance_uid})

    async def delete_case(self, case: str) -> None:
        await asyncio.to_thread(self._delete, "studies", {"AccessionNumber": case})

    def _store(self, files: Sequence[Path]) -> None:
        with self._server.client(ArchiveUnreachable) as client:
            for batch in _batches(files):
                answer = client.store_instances([dcmread(file) for file in batch])
                if refused := len(answer.get("FailedSOPSequence", ())):
                    raise RequestRefused(f"the archive refused {refused} instances")

    def _delete(self, folder: Literal["series", "studies"], identifiers: dict[str, str]) -> None:
        timeout = (self._server.connect_s, self._server.silence_s)
        level = {"series": "Series", "studies": "Study"}[folder]
        with self._server.session(ArchiveUnreachable) as session:
            found = session.post(
                f"{self._root_url}/tools/find", json={"Level": level, "Query": identifiers}, timeout=timeout
            )
            found.raise_for_status()
            for resource in found.json():
                session.delete(f"{self._root_url}/{folder}/{resource}", timeout=timeout).raise_for_status()


def _batches(files: Iterable[Path]) -> Iterator[list[Path]]:
    """Lists of files that together stay under the size of one request; a larger file goes alone."""
    batch: list[Path] = []
    size = 0
    for file in files:
        length = file.stat().st_size
        if batch and size + length > LARGEST_REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += length
    if batch:
        yield batch
