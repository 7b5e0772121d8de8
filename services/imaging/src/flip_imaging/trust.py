"""What the parts of a Trust's role share."""

import asyncio
from dataclasses import dataclass

from flip_chassis.database import Connection
from flip_chassis.service import Backbone
from flip_contracts.base import ProjectId

from flip_imaging import store
from flip_imaging.deidentify import Policy
from flip_imaging.folders import Folders, ListDamaged
from flip_imaging.ports import ImageStore, PacsSource
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.settings import TrustImagingSettings
from flip_imaging.workshop import Workshop


@dataclass(slots=True)
class TrustSide:
    """A Trust's role, running: its backbone, its PACS, its archive, its files, its secret."""

    stands: Backbone
    settings: TrustImagingSettings
    pacs: PacsSource
    archive: ImageStore
    workshop: Workshop
    folders: Folders
    trust_key: bytes

    @property
    def policy(self) -> Policy:
        """What may enter the archive."""
        return Policy(self.settings.modalities)

    def key(self, project_id: ProjectId) -> ProjectKey:
        """The key of the project's pseudonyms."""
        return ProjectKey.derive(self.trust_key, project_id)

    async def write_manifest(self, db: Connection, project_id: ProjectId) -> None:
        """List the project's cases, as this transaction leaves them, for those who train on them.

        The caller holds the project's lock. Where the transaction is lost afterwards the list is ahead of the database,
        but right about the files; the next start of the service mends it. Raises ListDamaged where a data set is
        registered whose list isn't there any more; then nothing is listed.
        """
        dataset = await store.dataset(db, project_id)
        if dataset is not None:
            await asyncio.to_thread(
                self.folders.write_manifest_of_dataset, project_id, dataset.dataset_sha256, dataset.manifest_sha256
            )
            return
        labels = await store.labels(db, project_id)
        cases = await store.cases(db, project_id)
        await asyncio.to_thread(self.folders.write_manifest, project_id, labels, cases)

    async def dataset_stands(self, db: Connection, project_id: ProjectId) -> bool:
        """Whether the list of the registered data set's cases is there, as it was registered."""
        dataset = await store.dataset(db, project_id)
        if dataset is None:
            return False
        try:
            await asyncio.to_thread(
                self.folders.list_of_dataset, project_id, dataset.dataset_sha256, dataset.manifest_sha256
            )
        except ListDamaged:
            return False
        return True

    async def remove_other_datasets(self, db: Connection, project_id: ProjectId) -> None:
        """Delete what is left of data sets that aren't registered any more. The caller holds the project's lock."""
        dataset = await store.dataset(db, project_id)
        await asyncio.to_thread(
            self.folders.remove_datasets, project_id, but=None if dataset is None else dataset.dataset_sha256
        )
