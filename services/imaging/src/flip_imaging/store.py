"""What a Trust's role asks its database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from flip_chassis.database import Connection, Row
from flip_contracts.base import ProjectId, Sha256
from flip_contracts.imaging import study_digest

from flip_imaging.folders import Case

COUNTED = ("queued", "importing", "imported", "failed", "capped")


@dataclass(frozen=True, slots=True)
class Claim:
    """A study that this process may work on while it holds the lease."""

    study_id: UUID
    project_id: ProjectId
    accession_number: str


@dataclass(frozen=True, slots=True)
class RegisteredDataset:
    """A ready data set in the place of a project's studies; `manifest_sha256` is of the list of its cases."""

    name: str
    cases: int
    channels: list[str]
    labels: dict[str, int]
    dataset_sha256: Sha256
    manifest_sha256: Sha256


async def lock_project(db: Connection, project_id: ProjectId) -> bool:
    """Be the only one to change the project's studies until the transaction ends. False: it is being deleted."""
    state = await db.fetchval("SELECT state FROM imaging_project WHERE project_id = $1 FOR UPDATE", project_id)
    return state == "active"


async def project_state(db: Connection, project_id: ProjectId) -> str | None:
    """The project's state, None where it was never asked for."""
    return await db.fetchval("SELECT state FROM imaging_project WHERE project_id = $1", project_id)


async def projects(db: Connection, state: str) -> list[ProjectId]:
    """The projects in this state, oldest first."""
    rows = await db.fetch("SELECT project_id FROM imaging_project WHERE state = $1 ORDER BY asked_at", state)
    return [row["project_id"] for row in rows]


async def known_accessions(db: Connection, project_id: ProjectId) -> dict[str, UUID]:
    """The project's studies by accession number."""
    rows = await db.fetch(
        "SELECT accession_number, study_id FROM study_accession WHERE project_id = $1 ORDER BY 1", project_id
    )
    return {row["accession_number"]: row["study_id"] for row in rows}


async def keep_accession(db: Connection, study_id: UUID, project_id: ProjectId, accession_number: str) -> None:
    """Remember which study in the PACS this one is."""
    await db.execute(
        "INSERT INTO study_accession (study_id, project_id, accession_number) VALUES ($1, $2, $3)"
        " ON CONFLICT (study_id) DO NOTHING",
        study_id,
        project_id,
        accession_number,
    )


async def forget_accessions(db: Connection, project_id: ProjectId) -> None:
    """Forget which studies the project had."""
    await db.execute("DELETE FROM study_accession WHERE project_id = $1", project_id)


async def claim(db: Connection, holder: UUID, lease: timedelta) -> Claim | None:
    """Take the lease of the study that is due longest and that nobody holds."""
    row = await db.fetchrow(
        "WITH due AS ("
        "  SELECT study.study_id FROM study JOIN imaging_project AS project USING (project_id)"
        "  LEFT JOIN study_lease AS lease USING (study_id)"
        "  WHERE study.state IN ('queued', 'importing', 'failed') AND study.due_at <= now()"
        "    AND project.state = 'active' AND NOT EXISTS (SELECT FROM dataset WHERE project_id = study.project_id)"
        "    AND (lease.until IS NULL OR lease.until < now())"
        "  ORDER BY study.due_at, study.study_id LIMIT 1"
        "), held AS ("
        "  INSERT INTO study_lease (study_id, holder, until) SELECT study_id, $1, now() + $2 FROM due"
        "  ON CONFLICT (study_id) DO UPDATE SET holder = excluded.holder, until = excluded.until"
        "  WHERE study_lease.until < now() RETURNING study_id"
        ") SELECT study_id, project_id, accession_number FROM held JOIN study_accession USING (study_id)",
        holder,
        lease,
    )
    return Claim(row["study_id"], row["project_id"], row["accession_number"]) if row else None


async def renew(db: Connection, holder: UUID, lease: timedelta) -> None:
    """Keep every lease of this process."""
    await db.execute("UPDATE study_lease SET until = now() + $2 WHERE holder = $1", holder, lease)


async def release(db: Connection, holder: UUID, study_id: UUID) -> None:
    """Give a lease back."""
    await db.execute("DELETE FROM study_lease WHERE study_id = $1 AND holder = $2", study_id, holder)


async def held(db: Connection, project_id: ProjectId) -> bool:
    """Whether anybody works on a study of the project."""
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM study_lease JOIN study USING (study_id) WHERE project_id = $1 AND until >= now())",
        project_id,
    )


async def pulling_allowed(db: Connection) -> bool:
    """Whether the operator lets this service ask the PACS."""
    return await db.fetchval("SELECT allowed FROM pulling")


async def allow_pulling(db: Connection, *, allowed: bool) -> None:
    """Turn the operator's switch."""
    await db.execute("UPDATE pulling SET allowed = $1", allowed)


async def counts(db: Connection, project_id: ProjectId) -> dict[str, int]:
    """The project's studies by state."""
    rows = await db.fetch("SELECT state, count(*) FROM study WHERE project_id = $1 GROUP BY state", project_id)
    return dict.fromkeys(COUNTED, 0) | {row["state"]: row["count"] for row in rows if row["state"] in COUNTED}


async def failures(db: Connection, project_id: ProjectId) -> dict[str, int]:
    """The project's failed and resting studies by reason."""
    rows = await db.fetch(
        "SELECT reason, count(*) FROM study WHERE project_id = $1 AND state IN ('failed', 'capped') GROUP BY reason",
        project_id,
    )
    return {row["reason"]: row["count"] for row in rows}


async def studies(db: Connection, project_id: ProjectId) -> list[Row]:
    """The project's studies as its operator may see them."""
    return await db.fetch(
        "SELECT study.*, accession_number FROM study JOIN study_accession USING (study_id)"
        " WHERE study.project_id = $1 AND state <> 'deleted' ORDER BY accession_number",
        project_id,
    )


async def study_names(db: Connection, project_id: ProjectId) -> list[tuple[UUID, str]]:
    """Id and case of each study of the project that isn't deleted."""
    rows = await db.fetch(
        "SELECT study_id, case_name FROM study WHERE project_id = $1 AND state <> 'deleted' ORDER BY 2", project_id
    )
    return [(row["study_id"], row["case_name"]) for row in rows]


async def cases(db: Connection, project_id: ProjectId) -> list[Case]:
    """The imported studies as the manifest lists them."""
    rows = await db.fetch(
        "SELECT case_name, accession_number, modality, image_sha256, label_sha256"
        " FROM study JOIN study_accession USING (study_id)"
        " WHERE study.project_id = $1 AND state = 'imported' ORDER BY case_name",
        project_id,
    )
    return [
        Case(
            row["case_name"],
            study_digest(project_id, row["accession_number"]),
            row["modality"],
            row["image_sha256"],
            row["label_sha256"],
        )
        for row in rows
    ]


async def labels(db: Connection, project_id: ProjectId, without: Sequence[UUID] = ()) -> dict[str, int]:
    """Every structure that the project's labels name, with its value; the labels of `without` are left out."""
    rows = await db.fetch(
        "SELECT labels FROM study WHERE project_id = $1 AND state = 'imported' AND NOT study_id = ANY($2)",
        project_id,
        list(without),
    )
    return {name: value for row in rows for name, value in row["labels"].items()}


async def training_has_begun(db: Connection, project_id: ProjectId) -> bool:
    """Whether a run was ever prepared from the project's labels."""
    return bool(await db.fetchval("SELECT training FROM imaging_project WHERE project_id = $1", project_id))


async def dataset(db: Connection, project_id: ProjectId) -> RegisteredDataset | None:
    """The ready data set that stands in for the project's studies."""
    row = await db.fetchrow(
        "SELECT name, cases, channels, labels, dataset_sha256, manifest_sha256 FROM dataset WHERE project_id = $1",
        project_id,
    )
    return None if row is None else RegisteredDataset(**row)


async def told(db: Connection, project_id: ProjectId, kind: str) -> Any | None:
    """What the hub was told last of this kind."""
    return await db.fetchval("SELECT said FROM told WHERE project_id = $1 AND kind = $2", project_id, kind)


async def keep_told(db: Connection, project_id: ProjectId, kind: str, said: Any) -> None:
    """Remember what the hub was told."""
    await db.execute(
        "INSERT INTO told (project_id, kind, said) VALUES ($1, $2, $3)"
        " ON CONFLICT (project_id, kind) DO UPDATE SET said = excluded.said",
        project_id,
        kind,
        said,
    )


async def forget_told(db: Connection, project_id: ProjectId, kind: str) -> None:
    """Tell the hub anew next time."""
    await db.execute("DELETE FROM told WHERE project_id = $1 AND kind = $2", project_id, kind)
