"""What the parts of a Trust's role share."""

import asyncio
from dataclasses import dataclass

from flip_chassis.database import Connection
from flip_chassis.service import Backbone
from flip_contracts.base import ProjectId

from flip_imaging import store
from flip_imaging.deidentify import Policy
from flip_imaging.folders import Folders
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
        but right about the files; the next start of the service mends it.
        """
        labels = await store.labels(db, project_id)
        cases = await store.cases(db, project_id)
        await asyncio.to_thread(self.folders.write_manifest, project_id, labels, cases)
