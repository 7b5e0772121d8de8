"""What `audit` says: who read the ledger."""

from flip_contracts.base import Event, ProjectId, UserId
from flip_contracts.topics import LEDGER


class LedgerRead(Event, topic=LEDGER, version=1):
    """Somebody read the ledger, narrowed by these terms."""

    reader: UserId
    project_id: ProjectId | None = None
    types: frozenset[str] = frozenset()
    entries: int
