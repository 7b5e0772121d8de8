"""The results of runs and the files of models, each used only after its scan; the rounds of runs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import NotFound, require
from flip_contracts.apps import FileName
from flip_contracts.base import Message, ModelId, ProjectId, ReasonCode, RunId, Sha256, UserId
from flip_contracts.files import (
    AttemptRounds,
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    ResultsDownloaded,
    ResultsPublished,
    ResultsRefused,
    RoundDownloaded,
    RoundsDeleted,
)
from flip_contracts.projects import Framework, Job
from flip_contracts.topics import MODEL_FILE, RESULT
from flip_contracts.trainer_node import ResultsCollected

from flip_files.findings import Inspection

# --- the results of a run: collected, then published or refused by the scan ---------------------------------------

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


# --- the rounds of a run: all are kept while it runs and for a time after its end, then those that must stay ----------


@dataclass(frozen=True, slots=True)
class Round:
    """The weights after a round, as one attempt stored them. `best_object` are the best ones so far.

    `needed`: another run began with them, or had them as its best.
    """

    project_id: ProjectId
    attempt: int
    number: int
    object: str
    digest: Sha256
    best_object: str | None = None
    deleted: bool = False
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Rounds:
    """All that was ever stored of a run's rounds, and with which round each of its attempts began."""

    stored: Sequence[Round] = ()
    first_rounds: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def counting(self) -> Mapping[int, Round]:
        """The run's course, by number: an attempt puts aside what earlier ones did behind where it went on from."""
        in_turn = sorted(self.stored, key=lambda each: (each.number, each.attempt))
        return {each.number: each for each in in_turn if not self._is_put_aside(each)}

    def _is_put_aside(self, stored: Round) -> bool:
        return any(attempt > stored.attempt and first <= stored.number for attempt, first in self.first_rounds.items())

    @property
    def last(self) -> int | None:
        """The last round."""
        return max(self.counting, default=None)

    @property
    def best(self) -> int | None:
        """The best round, as the last one was told; None where rounds are not scored."""
        counting = self.counting
        judged = counting[max(counting)].best_object if counting else None
        return next((number for number, each in counting.items() if each.object == judged), None)

    @property
    def staying(self) -> frozenset[int]:
        """The rounds that are never deleted: the last one, the best one, and those that other runs need."""
        needed = (number for number, each in self.counting.items() if each.needed)
        return frozenset(number for number in (self.last, self.best, *needed) if number is not None)


def thin(rounds: Rounds, run_id: RunId) -> RoundsDeleted | None:
    """Give up all that need not stay of a run that ended long ago. None where that has been done before."""
    counting, staying = rounds.counting, rounds.staying
    stays = {counting[number] for number in staying}
    given_up = [each for each in rounds.stored if each not in stays and not each.deleted]
    if not given_up:
        return None
    in_turn = sorted(given_up, key=lambda each: (each.attempt, each.number))
    return RoundsDeleted(
        run_id=run_id,
        project_id=given_up[0].project_id,
        deleted=[
            AttemptRounds(attempt=attempt, rounds=[each.number for each in of_attempt])
            for attempt, of_attempt in groupby(in_turn, key=lambda each: each.attempt)
        ],
        kept=sorted(staying),
    )


def download_round(rounds: Rounds, run_id: RunId, number: int, user_id: UserId) -> tuple[Round, RoundDownloaded]:
    """Give the weights after a round to a user who may see the project."""
    asked = rounds.counting.get(number)
    if asked is None:
        raise NotFound("round-not-found", "The run has no such completed round.")
    require(not asked.deleted, "round-deleted", "The time for which it was kept is over.", kept=sorted(rounds.staying))
    downloaded = RoundDownloaded(
        run_id=run_id, project_id=asked.project_id, user_id=user_id, round=number, digest=asked.digest
    )
    return asked, downloaded


# --- the files of a model: uploaded, then accepted or refused by the scan; replaced or removed at any time ----------


@dataclass(frozen=True, slots=True)
class Model:
    """A model as far as its files go."""

    model_id: ModelId
    project_id: ProjectId
    framework: Framework
    job: Job


@dataclass(frozen=True, slots=True)
class Held:
    """A file of a model: the upload that it is, and whether its scan has been judged."""

    upload: ModelFileUploaded
    judged: bool = False


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model by their paths."""

    by_path: Mapping[FileName, Held] = field(default_factory=dict[FileName, Held])


def require_custom(model: Model) -> None:
    """Refuse files of a model that has none: the platform's own jobs need no code."""
    require(model.job == "custom", "model-takes-no-files", "Its job brings its own code.", job=model.job)


def upload(files: ModelFiles, uploaded: ModelFileUploaded, most_files: int) -> ModelFileUploaded:
    """Take a file, new or in the place of an earlier one. Runs under way keep the files that they were started with."""
    is_new = uploaded.path not in files.by_path
    detail = f"A model has at most {most_files} files."
    require(not is_new or len(files.by_path) < most_files, "too-many-files", detail, most_files=most_files)
    return uploaded


def remove(files: ModelFiles, model: Model, path: FileName) -> ModelFileRemoved:
    """Take a file out of the model."""
    if path not in files.by_path:
        raise NotFound("file-not-found", "The model has no such file.")
    return ModelFileRemoved(model_id=model.model_id, project_id=model.project_id, path=path)


def waits_for(files: ModelFiles, uploaded: ModelFileUploaded) -> bool:
    """Whether the verdict on this upload is waited for: it was not judged before, replaced or removed."""
    return files.by_path.get(uploaded.path) == Held(uploaded)


def judge_file(
    uploaded: ModelFileUploaded, scan: Scan | None, inspection: Inspection
) -> ModelFileAccepted | ModelFileRefused:
    """Accept what is clean and is what was uploaded; refuse all else. `scan` is None where the upload is lost."""
    if scan is None:
        return _refuse_file(uploaded, "upload-lost", "Upload it again.")
    if scan.digest != uploaded.digest:
        return _refuse_file(uploaded, "digest-differs")
    if scan.found is not None:
        return _refuse_file(uploaded, "malware-found")
    if inspection.refused is not None:
        return _refuse_file(uploaded, inspection.refused, inspection.detail)
    return ModelFileAccepted(
        model_id=uploaded.model_id,
        project_id=uploaded.project_id,
        path=uploaded.path,
        digest=uploaded.digest,
        size_bytes=uploaded.size_bytes,
        engine=scan.engine,
        signatures=scan.signatures,
        findings=inspection.findings,
        configuration=inspection.configuration,
    )


def _refuse_file(uploaded: ModelFileUploaded, reason: ReasonCode, detail: str = "") -> ModelFileRefused:
    return ModelFileRefused(
        model_id=uploaded.model_id,
        project_id=uploaded.project_id,
        path=uploaded.path,
        digest=uploaded.digest,
        reason=reason,
        detail=detail,
    )


def evolve_files(files: ModelFiles, event: Message) -> ModelFiles:
    """The state after an event."""
    match event:
        case ModelFileUploaded():
            return ModelFiles({**files.by_path, event.path: Held(event)})
        case ModelFileAccepted() | ModelFileRefused():
            return ModelFiles({**files.by_path, event.path: Held(files.by_path[event.path].upload, judged=True)})
        case ModelFileRemoved():
            return ModelFiles({path: held for path, held in files.by_path.items() if path != event.path})
        case _:
            return files


MODEL_FILES = Aggregate(MODEL_FILE, ModelFiles(), evolve_files)
