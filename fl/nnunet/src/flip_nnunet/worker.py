"""A site's side of a federated training: each operation takes a message and answers with one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flip_nnunet.dataset import RawDataset, canonical_description
from flip_nnunet.fingerprint import Fingerprint
from flip_nnunet.job import Job
from flip_nnunet.message import Array, Json, Message, SiteFailed, digest
from flip_nnunet.nnunet import nnunet_environment
from flip_nnunet.operations import Operations
from flip_nnunet.plan import make_plan, target_spacing
from flip_nnunet.preprocess import PreprocessedCache
from flip_nnunet.software import versions
from flip_nnunet.statistics import Statistics
from flip_nnunet.train import SiteTraining, check_device

_PLANNING_AUGMENTERS = 1


class Worker(Operations):
    """One site in one run. Every operation finds what earlier ones left on disk, so each may run in a new process.

    data: the folder that holds `nnUNet_raw/DatasetXYZ_name`; it is only read.
    work: the site's folder for `preprocessed/` (kept over runs) and `runs/<run_id>/` (the caller's to delete).
    minimum_cases: the site's disclosure threshold; with fewer cases it answers no question.
    """

    def __init__(self, site: str, data: Path, work: Path, job: Job, minimum_cases: int) -> None:
        self._site = site
        self._raw = data / "nnUNet_raw"
        self._job = job
        self._minimum_cases = minimum_cases
        self._run = work / "runs" / job.run_id
        self._cache = PreprocessedCache(work / "preprocessed")
        self._training: SiteTraining | None = None
        super().__init__(
            {
                "describe": self.describe,
                "statistics": self.statistics,
                "refine": self.refine,
                "geometry": self.geometry,
                "plan": self.plan,
                "preprocess": self.preprocess,
                "initialise": self.initialise,
                "train_round": self.train_round,
                "stop": self.stop,
            },
            self._run,
        )

    def describe(self, _: Message) -> Message:
        """How many cases, under which schema, with which software. -> meta cases, schema, data (a digest), versions.

        The schema goes as JSON text: its order carries meaning, and a transport may sort the keys of an object.
        """
        check_device(self._job.payload.device)
        dataset = self._dataset()
        data = dataset.digest()
        self._save("run", {"data_digest": data})
        schema = json.dumps(dataset.schema)
        return Message({"cases": len(dataset.cases), "schema": schema, "data": data, "versions": versions()})

    def statistics(self, message: Message) -> Message:
        """Draw `voxels_per_case` voxels. -> meta channels [{count, integer}]; arrays `histogram/CHANNEL` (integers)."""
        drawn = Statistics.draw(
            self._dataset(),
            self._run / "statistics",
            int(message.meta["voxels_per_case"]),
            self._job.profile.processes,
        )
        summaries = list(drawn.summaries())
        return Message(
            {"channels": [summary for summary, _ in summaries]},
            {f"histogram/{i}": histogram for i, (_, histogram) in enumerate(summaries) if histogram is not None},
        )

    def refine(self, message: Message) -> Message:
        """Count voxels by refined bins (meta columns -> arrays `counts/COLUMN`), or sum them (meta moments -> same)."""
        drawn = self._statistics()
        if "moments" in message.meta:
            asked = message.meta["moments"]
            return Message({"moments": drawn.moments(int(asked["channel"]), float(asked["centre"]))})
        columns: dict[str, Json] = message.meta["columns"]
        return Message(
            arrays={
                f"counts/{column}": drawn.count_voxels(int(column.removeprefix("intensity/")), query)
                for column, query in columns.items()
            }
        )

    def geometry(self, message: Message) -> Message:
        """Count cases by refined bins (meta columns -> arrays `counts/COLUMN`), under the target of meta synopsis."""
        target = target_spacing(message.meta["synopsis"]) if "synopsis" in message.meta else None
        drawn = self._statistics()
        columns: dict[str, Json] = message.meta["columns"]
        counts: dict[str, Array] = {
            f"counts/{column}": drawn.count_geometry(column, query, target) for column, query in columns.items()
        }
        return Message(arrays=counts)

    def plan(self, message: Message) -> Message:
        """Plan from the federation's fingerprint and case count. -> meta plan, digest."""
        description = canonical_description(self._dataset().schema, int(message.meta["cases"]), self._job.dataset_name)
        self._write_raw_view(description)
        payload = self._job.payload
        with self._nnunet(self._planning, _PLANNING_AUGMENTERS):
            plan = make_plan(
                Fingerprint.from_json(message.meta["fingerprint"]),
                self._job.dataset_name,
                self._planning,
                payload.model_configuration,
                self._job.profile,
            )
        self._save("dataset", description)
        self._save("plan", plan)
        return Message({"plan": plan, "digest": digest(plan)})

    def preprocess(self, _: Message) -> Message:
        """Preprocess by the plan, or find it done. -> meta reused, seconds. The images stay here."""
        started = time.monotonic()
        with self._nnunet(self._planning, _PLANNING_AUGMENTERS):
            reused = self._cache.make(
                self._dataset(),
                self._load("plan"),
                self._job.payload.model_configuration,
                self._load("run")["data_digest"],
                self._planning,
                self._job.profile.processes,
            )
        return Message({"reused": reused, "seconds": round(time.monotonic() - started, 3)})

    def initialise(self, _: Message) -> Message:
        """Build the network. -> arrays: its first weights; meta ties, mirroring_axes."""
        with self._trainer_for(0) as training:
            return Message({"ties": training.ties(), "mirroring_axes": training.mirroring_axes()}, training.weights())

    def train_round(self, message: Message) -> Message:
        """Train one round from the weights in the arrays. -> arrays: new weights; meta: a `Contribution`."""
        number = int(message.meta["round"])
        with self._trainer_for(number) as training:
            result = training.run_round(number, message.arrays)
        meta = {
            "round": number,
            "plan": digest(self._load("plan")),
            "cases": result.cases,
            "metrics": result.metrics,
            "state": result.state,
            "seconds": round(result.seconds, 3),
        }
        return Message(meta, result.weights)

    def stop(self, _: Message) -> Message:
        """Let go of the trainer. What is on disk stays, so the run can go on later."""
        if self._training is not None:
            self._training.close()
            self._training = None
        return Message()

    # --- what lies on disk ---------------------------------------------------------------------------------------

    @property
    def _planning(self) -> Path:
        return self._run / "planning"

    def _dataset(self) -> RawDataset:
        dataset = RawDataset.find(self._raw, self._job.payload.dataset_id)
        if len(dataset.cases) < self._minimum_cases:
            raise SiteFailed("too-few-cases", f"the site takes part with {self._minimum_cases} cases or more")
        return dataset

    def _statistics(self) -> Statistics:
        return Statistics(self._run / "statistics", len(self._dataset().schema["channel_names"]))

    def _write_raw_view(self, description: Json) -> None:
        """The data set as nnU-Net's planner is to see it: the federation's name and case count, this site's files."""
        folder = self._run / "raw" / self._job.dataset_name
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            case.name: {"images": [str(image.resolve()) for image in case.images], "label": str(case.label.resolve())}
            for case in self._dataset().cases
        }
        (folder / "dataset.json").write_text(json.dumps({**description, "dataset": files}), "utf-8")

    def _nnunet(self, preprocessed: Path, augmenters: int | None) -> AbstractContextManager[None]:
        return nnunet_environment(self._run / "raw", preprocessed, self._run / "results", augmenters)

    @contextmanager
    def _trainer_for(self, number: int) -> Iterator[SiteTraining]:
        """The trainer that can do round `number`: the one in memory, or a new one, which takes its state from disk."""
        if self._training is not None and self._training.next_round != number:
            self.stop(Message())
        plan = self._load("plan")
        preprocessed = self._cache.path(plan, self._job.payload.model_configuration, self._load("run")["data_digest"])
        with self._nnunet(preprocessed, self._job.profile.augmentation_processes):
            if self._training is None:
                self._training = SiteTraining(self._site, self._job, plan, self._load("dataset"), self._run / "states")
            yield self._training

    def _save(self, name: str, record: Json) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        unfinished = self._run / f"{name}.unfinished"
        unfinished.write_text(json.dumps(record), "utf-8")
        unfinished.replace(self._run / f"{name}.json")

    def _load(self, name: str) -> Json:
        file = self._run / f"{name}.json"
        if not file.is_file():
            raise SiteFailed("operation-out-of-order", f"{name}.json of this run is missing here")
        return json.loads(file.read_text("utf-8"))
