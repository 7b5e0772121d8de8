"""What is federated in a run, as the hub and every site know it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from flip_contracts.apps import Weight
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from flip_nnunet.message import Json
from flip_nnunet.patience import Patience
from flip_nnunet.payload import ComputeProfile, InferencePayload, TrainingPayload


class _Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    """Names the run's state on disk at each site: a later attempt under the same id goes on from it."""
    profile: ComputeProfile
    cohorts: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    """The digest of each site's frozen cohort, where the platform knows it. The results' seal has it."""
    patience: Patience = Patience()


class Job(_Job):
    """What is trained, under which names and seed. The same record at the hub and at every site."""

    dataset_name: Annotated[str, Field(pattern=r"^Dataset[0-9]{3}_[A-Za-z0-9_-]{1,80}$")]
    """The one name under which every site plans, so that the plans can be equal; it also names the results."""
    payload: TrainingPayload
    seed: int
    aggregation_weights: dict[str, Weight] = {}
    """Factors on a site's number of cases when weights are averaged; 1 for a site not named, 0: it does not count.
    Others are from 0.001 to 1000."""
    minimum_sites: PositiveInt | None = None
    """Sites whose contribution a round needs; None for all."""
    largest_update: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """How far a contribution may lie from the weights that were sent (see `contribution.RoundTerms`)."""

    @model_validator(mode="after")
    def _one_dataset_id(self) -> Job:
        if int(self.dataset_name[7:10]) != self.payload.dataset_id:
            raise ValueError(f"dataset_name: {self.dataset_name} is not data set {self.payload.dataset_id:03d}")
        return self

    def check_sites(self, sites: Collection[str]) -> None:
        """Whether the job can be done by these sites. Raises ValueError that names the field."""
        unknown = sorted(self.aggregation_weights.keys() - set(sites))
        if unknown:
            raise ValueError(f"aggregation_weights: {', '.join(unknown)} takes no part")
        if not any(self.aggregation_weights.get(site, 1.0) for site in sites):
            raise ValueError("aggregation_weights: no site counts")
        if self.minimum_sites is not None and self.minimum_sites > len(sites):
            raise ValueError(f"minimum_sites: {self.minimum_sites} of {len(sites)} sites")


class InferenceJob(_Job):
    """What is predicted. The same record at the hub and at every site."""

    payload: InferencePayload
    largest_archive_bytes: PositiveInt = 4 * 2**30
    """How much a site's masks of one data set may take, zipped; a site that has more is refused."""


AnyJob = Job | InferenceJob


def read_job(record: Json) -> AnyJob:
    """The job in a record, of the kind that the mode of its payload names. Raises ValueError that names the field."""
    payload = record.get("payload")
    kind = InferenceJob if isinstance(payload, dict) and payload.get("mode") == "inference" else Job
    return kind.model_validate(record)
