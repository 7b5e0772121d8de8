"""One federated training of a researcher's app, as the hub and every site know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from flip_contracts.apps import FileName, Rounds
from flip_contracts.base import Sha256
from flip_contracts.projects import Framework
from flip_nnunet.message import digest
from flip_nnunet.patience import Patience
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

APP = "app"


class AppJob(BaseModel):
    """What is trained, with which files and on whose data. The same record at the hub and at every site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["app"]
    framework: Framework
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    project_id: str
    query: Sha256
    """The digest of the project's approved query: what the app hands to `flip`. The text never travels."""
    files: Annotated[dict[FileName, Sha256], Field(min_length=1)]
    """Every file of the app with its digest: a site runs no other."""
    cohorts: dict[str, Sha256] = {}
    """The digest of each site's frozen cohort, where the platform knows it. The results' seal has it."""
    patience: Patience = Patience()
    seed: int
    local_rounds: Rounds | None = None
    """Goes before what the app's own configuration says."""
    starting_round: NonNegativeInt = 0
    """The round to go on with; the hub has the weights of the one before."""
    minimum_sites: PositiveInt | None = None
    """Sites whose contribution a round needs where results in error may be ignored; None for one."""
    largest_update: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """How far a contribution may lie from the weights that were sent (see `flip_nnunet.contribution.RoundTerms`)."""

    @property
    def app_digest(self) -> str:
        """Names the app: it differs if any of its files does."""
        return digest(self.files)


def is_app(job: Mapping[str, Any]) -> bool:
    """Whether a job's record is of a researcher's app."""
    return job.get("kind") == APP
