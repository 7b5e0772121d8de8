"""What `files` says: the results of runs."""

from flip_contracts.base import Event, ProjectId, ReasonCode, RunId, Sha256, UserId
from flip_contracts.topics import RESULT


class ResultsPublished(Event, topic=RESULT, version=1):
    """The run's results were scanned, found clean and can be downloaded under this name."""

    run_id: RunId
    project_id: ProjectId
    name: str
    digest: Sha256
    size_bytes: int
    engine: str
    signatures: str


class ResultsRefused(Event, topic=RESULT, version=1):
    """The run's results failed their scan and are withheld."""

    run_id: RunId
    project_id: ProjectId
    reason: ReasonCode


class ResultsDownloaded(Event, topic=RESULT, version=1):
    """Somebody downloaded the run's results."""

    run_id: RunId
    project_id: ProjectId
    user_id: UserId
    digest: Sha256
