"""What `audit` says: who read the ledger, and which of it is signed."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from flip_contracts.base import Event, ProjectId, Sha256, UserId
from flip_contracts.topics import CHECKPOINT, LEDGER


class LedgerRead(Event, topic=LEDGER, version=1):
    """Somebody read the ledger, narrowed by these terms."""

    reader: UserId
    project_id: ProjectId | None = None
    types: frozenset[str] = frozenset()
    actor: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    entries: int


class LedgerExported(Event, topic=LEDGER, version=1):
    """Somebody took a copy of the ledger, or of the part of it that these terms leave."""

    reader: UserId
    project_id: ProjectId | None = None
    types: frozenset[str] = frozenset()
    actor: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class CheckpointSigned(Event, topic=CHECKPOINT, version=1):
    """The entries `first` to `last` are signed, and the statement lies in the object store under `object`.

    `head` is the hash of the last entry, `root` the Merkle root over all, `digest` the SHA-256 of the statement.
    """

    number: Annotated[int, Field(ge=1)]
    first: int
    last: int
    head: Sha256
    root: Sha256
    digest: Sha256
    key_id: Sha256
    object: str
