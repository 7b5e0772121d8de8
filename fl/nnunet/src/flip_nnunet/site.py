"""A site in one run: the operations that its job needs, wherever it is asked from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flip_nnunet.attempt import check_run
from flip_nnunet.job import AnyJob, InferenceJob, read_job
from flip_nnunet.message import Json
from flip_nnunet.operations import Operations
from flip_nnunet.predict import Predictor
from flip_nnunet.site_settings import CAUTIOUS, Predictions, SiteSettings
from flip_nnunet.worker import Worker


@dataclass(frozen=True, slots=True)
class Site:
    """A site's name, its folders and what it lets out: see `Worker` and `Predictor`."""

    name: str
    data: Path
    work: Path
    minimum_cases: int
    predictions: Predictions = CAUTIOUS
    models: Path | None = None

    @classmethod
    def of(cls, name: str, run_id: str, settings: SiteSettings) -> Site:
        """The site as its settings have it, in one run."""
        data, work = settings.data(run_id), settings.work(run_id)
        return cls(name, data, work, settings.minimum_cases, settings.predictions, settings.models)

    def operations(self, job: AnyJob) -> Operations:
        """What the site can be asked in this job."""
        if isinstance(job, InferenceJob):
            return Predictor(self.data, self.work, job, self.minimum_cases, self.predictions, self.models)
        return Worker(self.name, self.data, self.work, job, self.minimum_cases)


def site_in_run(name: str, run_id: str, settings: SiteSettings, record: Json) -> Operations:
    """The site of a run whose job came as `record`.

    Raises ValueError if the job is malformed or of another run than that for which the site's process was started.
    """
    job = read_job(record)
    check_run(job.run_id, run_id)
    return Site.of(name, run_id, settings).operations(job)
