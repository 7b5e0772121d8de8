"""The Trusts' real input: a synthetic hospital's records in its OMOP database and its brain images in its PACS."""

from __future__ import annotations

from flip_local.credentials import Credentials
from flip_local.layout import Layout
from flip_local.part import Part, TaskProbe
from flip_local.parts.postgres import OMOP, Cluster, owner_role
from flip_local.task import task


def parts(layout: Layout) -> list[Part]:
    """One loading task a Trust, one after the other: they share what they make on the way."""
    return [_load(layout, trust, before) for before, trust in zip((None, *layout.trusts), layout.trusts, strict=False)]


def _load(layout: Layout, trust: str, before: str | None) -> Part:
    user, password = Credentials(layout).orthanc("pacs", trust)
    folders = ("--parts", str(layout.downloads), "--out", str(layout.folder(trust)))
    return Part(
        name=f"records-{trust}",
        command=task("flip_local.data", "--trust", trust, *folders),
        ready=TaskProbe(),
        after=(f"databases-{trust}", f"pacs-{trust}", *([f"records-{before}"] if before else [])),
        environment={
            "FLIP_OMOP_OWNER_DSN": Cluster.of(layout, trust).dsn(OMOP, owner_role(OMOP)),
            "FLIP_PACS_URL": layout.url(f"pacs-{trust}"),
            "FLIP_PACS_USER": user,
            "FLIP_PACS_PASSWORD": password,
        },
    )
