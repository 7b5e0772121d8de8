# pyright: reportMissingTypeStubs=false
"""The Trust's frozen cohort, which its cohort service keeps: read only, by a role of its own."""

import asyncio

from flip_chassis.database import connect
from flip_contracts.base import ProjectId

PATIENCE_S = 10


class FrozenCohort:
    """Which studies belong to a project at this Trust."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def accession_numbers(self, project_id: ProjectId) -> list[str]:
        """The accession numbers of the frozen cohort. Raises TimeoutError while the database is away."""
        async with asyncio.timeout(PATIENCE_S), connect(self._dsn) as db:
            rows = await db.fetch(
                "SELECT DISTINCT accession_id FROM frozen.cohort_member"
                " WHERE project_id = $1 AND accession_id IS NOT NULL ORDER BY accession_id",
                project_id,
            )
        return [row["accession_id"] for row in rows]
