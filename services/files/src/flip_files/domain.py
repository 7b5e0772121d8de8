"""The results of a run: collected, then published or refused by the scan. Pure."""

from dataclasses import dataclass
from typing import Literal

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import NotFound, require
from flip_contracts.base import Message, ProjectId, RunId, Sha256, UserId
from flip_contracts.files import ResultsDownloaded, ResultsPublished, ResultsRefused
from flip_contracts.topics import RESULT
from flip_contracts.trainer_node import ResultsCollected

Status = Literal["absent", "published", "refused"]


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a run's results."""

    status: Status = "absent"
    project_id: ProjectId | None = None
    name: str = ""
    digest: Sha256 = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What the scanner said of an object: its engine, its signatures, what it found, and the object's SHA-256."""

    engine: str
    signatures: str
    found: str | None
    digest: Sha256


def judge(result: Result, collected: ResultsCollected, scan: Scan) -> ResultsPublished | ResultsRefused | None:
    """Publish what is clean and is what was collected; refuse all else. None where this was judged before."""
    if result.status != "absent":
        return None
    if scan.digest != collected.digest:
        return _refuse(collected, "digest-differs")
    if scan.found is not None:
        return _refuse(collected, "malware-found")
    return ResultsPublished(
        run_id=collected.run_id,
        project_id=collected.project_id,
        name=collected.name,
        digest=collected.digest,
        size_bytes=collected.size_bytes,
        engine=scan.engine,
        signatures=scan.signatures,
    )


def _refuse(collected: ResultsCollected, reason: str) -> ResultsRefused:
    return ResultsRefused(run_id=collected.run_id, project_id=collected.project_id, reason=reason)


def download(result: Result, run_id: RunId, user_id: UserId) -> ResultsDownloaded:
    """Give the results to a user who may see the project. Only what was published can be had."""
    if result.project_id is None:
        raise NotFound("results-not-found", "The run has no results yet.")
    require(result.status == "published", "results-withheld", "The scan refused these results.", status=result.status)
    return ResultsDownloaded(run_id=run_id, project_id=result.project_id, user_id=user_id, digest=result.digest)


def evolve(result: Result, event: Message) -> Result:
    """The state after an event."""
    match event:
        case ResultsPublished():
            return Result("published", event.project_id, event.name, event.digest)
        case ResultsRefused():
            return Result("refused", event.project_id)
        case _:
            return result


RESULTS = Aggregate(RESULT, Result(), evolve)
