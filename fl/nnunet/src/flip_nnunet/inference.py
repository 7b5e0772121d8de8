"""The federated prediction, once, for any transport: where the images lie, and what may leave comes back."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from flip_nnunet.federation import JobUnfit, RecordsDiffer, Sites, Store, Tell, tell_exported, told_of
from flip_nnunet.files import file_digest
from flip_nnunet.job import InferenceJob
from flip_nnunet.message import MALFORMED, Json, Message, SiteFailure, SitesFailed, settle
from flip_nnunet.model import Model, ModelUnfit
from flip_nnunet.seal import Results, check, seal
from flip_nnunet.site_settings import Predictions
from flip_nnunet.software import versions

PART_BYTES = 1 << 24
"""How much of an archive is asked for at a time: what the hub holds of it in memory."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(min_length=1, max_length=100)]


class _Reply(BaseModel):
    """What a site answers; fields that are not known are left aside."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Has(_Reply):
    cases: PositiveInt
    data: _Sha256


class _Described(_Reply):
    datasets: Annotated[dict[str, _Has], Field(min_length=1)]
    predictions: Predictions
    versions: dict[_Name, _Name]


class _Facts(_Reply):
    plan: _Sha256
    weights: _Sha256
    labels: list[_Name]
    channels: list[_Name]
    configuration: _Name
    fold: int | _Name
    trainer: _Name


class _Loaded(_Reply):
    model: _Facts


class _Mean(_Reply):
    cases: PositiveInt
    mean: Annotated[float, Field(ge=0, le=1)]


class _Scores(_Reply):
    cases: PositiveInt
    dice: dict[_Name, _Mean | None]


class _Archive(_Reply):
    bytes: PositiveInt
    sha256: _Sha256


class _Predicted(_Reply):
    cases: PositiveInt
    seconds: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
    scores: _Scores | None
    archive: _Archive | None


_R = TypeVar("_R", bound=_Reply)
_Answers = dict[str, dict[str, _Predicted]]
"""What was answered to `predict`, by data set and site."""


class ModelsDiffer(RecordsDiffer):
    """The sites' own models at the path are not the same."""

    code = "models-differ"


@dataclass(frozen=True, slots=True)
class InferenceOutcome:
    """What a finished prediction left behind. `cases`: how many of each data set, by site."""

    cases: dict[str, dict[str, int]]
    results: Results

    def facts(self) -> Json:
        """As it is told when the run has finished."""
        return {"cases": self.cases, **told_of(self.results)}


def infer(sites: Sites, job: InferenceJob, store: Store, tell: Tell) -> InferenceOutcome:
    """Predict each data set of `job` at every site that has it, and put what comes back into one sealed zip.

    All sites are needed, and each needs one of the data sets at least. Raises `JobUnfit`, `SitesFailed`,
    `ModelsDiffer` or the store's `ModelMissing`; what the sites have predicted serves another attempt.
    """
    return _Inference(sites, job, store, tell).run()


class _Inference:
    def __init__(self, sites: Sites, job: InferenceJob, store: Store, tell: Tell) -> None:
        self._sites = sites
        self._job = job
        self._store = store
        self._tell = tell
        self._names = sorted(sites.names())

    def run(self) -> InferenceOutcome:
        self._store.save_record("job", self._job.model_dump(mode="json"))
        folder = self._store.results() / "predictions"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        described = self._describe()
        model = self._load()
        predicted: _Answers = {}
        for dataset, cases in self._datasets(described).items():
            predicted[dataset] = self._predict(dataset, cases, model)
            self._collect(dataset, predicted[dataset], folder)
        self._let_go()
        results = self._export(described, model, predicted, folder)
        tell_exported(self._tell, results)
        cases = {dataset: _cases(answers) for dataset, answers in predicted.items()}
        return InferenceOutcome(cases, results)

    def _ask(
        self, operation: str, message: Message, kind: type[_R], sites: Sequence[str] | None = None
    ) -> dict[str, _R]:
        return _read(operation, settle(operation, self._sites.ask(operation, message, sites)), kind)

    def _let_go(self) -> None:
        """Tell every site that it may stop. One that does not answer takes nothing from what was predicted."""
        for _ in self._sites.ask("stop", Message()):
            pass

    def _describe(self) -> dict[str, _Described]:
        self._tell({"kind": "preparing", "sites": self._names})
        described = self._ask("describe", Message(), _Described)
        asked = self._job.payload.dataset_subdirs.keys()
        if unasked := [site for site, told in described.items() if told.datasets.keys() - asked]:
            raise SitesFailed("describe", dict.fromkeys(unasked, _malformed("datasets")))
        for dataset in asked:
            if not any(dataset in told.datasets for told in described.values()):
                raise JobUnfit(f"dataset_subdirs.{dataset}: no site has this data set")
        return described

    def _load(self) -> _Facts:
        loaded = self._ask("load", self._earlier_model(), _Loaded)
        facts = {site: answer.model.model_dump(mode="json") for site, answer in loaded.items()}
        if any(each != facts[self._names[0]] for each in facts.values()):
            raise ModelsDiffer(facts)
        self._tell({"kind": "model-loaded", **facts[self._names[0]]})
        return loaded[self._names[0]].model

    def _earlier_model(self) -> Message:
        """The model of the run that the payload names; nothing where each site has its own."""
        if self._job.payload.earlier_run is None:
            return Message()
        archive = self._store.earlier_results()
        sealed, _ = check(archive)
        plans = [name for name in sealed["digests"]["files"] if Path(name).name == "plans.json"]
        if len(plans) != 1:
            raise JobUnfit("checkpoint_path: the run trained no model")
        with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(archive) as zipped:
            zipped.extractall(unpacked)
            try:
                return Model.read(Path(unpacked, plans[0]).parent, self._job.payload).as_message()
            except ModelUnfit as unfit:
                raise JobUnfit(unfit.detail) from unfit

    def _datasets(self, described: Mapping[str, _Described]) -> dict[str, dict[str, int]]:
        """How many cases of each data set are to be predicted, by site; and says so."""
        datasets = {
            dataset: {
                site: told.datasets[dataset].cases for site, told in described.items() if dataset in told.datasets
            }
            for dataset in sorted(self._job.payload.dataset_subdirs, key=int)
        }
        self._tell({"kind": "predicting", "datasets": datasets})
        return datasets

    def _predict(self, dataset: str, cases: Mapping[str, int], model: _Facts) -> dict[str, _Predicted]:
        answers = self._ask("predict", Message({"dataset": dataset}), _Predicted, list(cases))
        wrong = {
            site: failure
            for site, answer in answers.items()
            if (failure := _fault(answer, cases[site], model, self._job.largest_archive_bytes)) is not None
        }
        if wrong:
            raise SitesFailed("predict", wrong)
        shown = {
            site: {
                "cases": answer.cases,
                "seconds": answer.seconds,
                "scores": None if answer.scores is None else answer.scores.model_dump(),
                "masks_bytes": None if answer.archive is None else answer.archive.bytes,
            }
            for site, answer in answers.items()
        }
        self._tell({"kind": "predicted", "dataset": dataset, "sites": shown})
        return answers

    def _collect(self, dataset: str, answers: Mapping[str, _Predicted], folder: Path) -> None:
        """Fetch the masks that may leave, a site after the other and a part after the other."""
        for site, answer in answers.items():
            if answer.archive is None:
                continue
            file = folder / _masks_name(site, dataset)
            file.parent.mkdir(exist_ok=True)
            self._fetch(site, dataset, answer.archive, file)
            if not _holds_masks(file, answer.cases):
                raise SitesFailed("collect", {site: SiteFailure(MALFORMED, "part: is no zip with a mask a case")})

    def _fetch(self, site: str, dataset: str, archive: _Archive, file: Path) -> None:
        with file.open("wb") as stream:
            while (offset := stream.tell()) < archive.bytes:
                expected = min(PART_BYTES, archive.bytes - offset)
                question = Message({"dataset": dataset, "offset": offset, "bytes": expected})
                [reply] = settle("collect", self._sites.ask("collect", question, [site])).values()
                part = reply.arrays.get("part")
                if part is None or part.dtype != "uint8" or part.shape != (expected,):
                    raise SitesFailed("collect", {site: _malformed("part")})
                stream.write(part.tobytes())
        if file_digest(file) != archive.sha256:
            raise SitesFailed("collect", {site: SiteFailure("archive-differs", "the masks are not those announced")})

    def _export(self, described: Mapping[str, _Described], model: _Facts, predicted: _Answers, folder: Path) -> Results:
        scores: Json = {
            dataset: {
                site: {
                    "cases": answer.cases,
                    "scores": None if answer.scores is None else answer.scores.model_dump(),
                    "masks": None if answer.archive is None else _masks_name(site, dataset),
                }
                for site, answer in answers.items()
            }
            for dataset, answers in predicted.items()
        }
        (folder / "scores.json").write_text(json.dumps(scores, indent=1), "utf-8")
        sites = {
            site: {**told.model_dump(mode="json"), "cohort": self._job.cohorts.get(site)}
            for site, told in described.items()
        }
        record: Json = {
            "format": 2,
            "job": self._job.model_dump(mode="json", exclude={"cohorts"}),
            "model": model.model_dump(mode="json"),
            "sites": sites,
            "hub": {"versions": versions()},
        }
        return seal(folder, folder, record)


def _read(operation: str, replies: Mapping[str, Message], kind: type[_R]) -> dict[str, _R]:
    """The replies as what they must be. Raises `SitesFailed` with the field that is not."""
    read: dict[str, _R] = {}
    wrong: dict[str, SiteFailure] = {}
    for site, reply in replies.items():
        try:
            read[site] = kind.model_validate(reply.meta)
        except ValidationError as error:
            wrong[site] = _malformed(str(error.errors()[0]["loc"][0]))
    if wrong:
        raise SitesFailed(operation, wrong)
    return read


def _malformed(field: str) -> SiteFailure:
    return SiteFailure(MALFORMED, f"{field}: missing or malformed")


def _fault(answer: _Predicted, cases: int, model: _Facts, largest: int) -> SiteFailure | None:
    """Why a site's prediction is not what it told before."""
    if answer.cases != cases:
        return SiteFailure(MALFORMED, f"cases: {answer.cases}, told {cases} before")
    if answer.scores is not None and answer.scores.dice.keys() - set(model.labels):
        return _malformed("scores")
    if answer.archive is not None and answer.archive.bytes > largest:
        return SiteFailure("archive-too-large", f"archive: {answer.archive.bytes} bytes; {largest} may be")
    return None


def _masks_name(site: str, dataset: str) -> str:
    return f"{site}/Dataset{int(dataset):03d}.zip"


def _cases(answers: Mapping[str, _Predicted]) -> dict[str, int]:
    return {site: answer.cases for site, answer in answers.items()}


def _holds_masks(archive: Path, cases: int) -> bool:
    """Whether it is a zip with one file a case, none of which names a folder."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            names = zipped.namelist()
    except zipfile.BadZipFile:
        return False
    return len(set(names)) == len(names) == cases and not any("/" in name or "\\" in name for name in names)
