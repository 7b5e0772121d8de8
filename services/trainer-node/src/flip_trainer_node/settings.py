"""The settings of the two roles: a net's controller at the hub, a net's worker at a Trust."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from flip_chassis.settings import Settings
from flip_contracts.base import NetName, TrustCode
from flip_contracts.projects import Framework
from flip_contracts.scheduler import Resources
from pydantic import Field, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from flip_trainer_node.domain import Terms
from flip_trainer_node.runtimes import RUNTIMES, Runtime


class Role(BaseSettings):
    """Which of the two this process is."""

    model_config = SettingsConfigDict(env_prefix="FLIP_", frozen=True)

    role: Literal["controller", "worker"]


class NodeSettings(Settings):
    """What both roles are told. Each net has its own database, consumer group and source in each role."""

    service = "trainer-node"

    net: NetName
    framework: Framework
    """What the net trains on: one framework for the net's life."""
    trainer_python: Path
    """The interpreter of the framework's environment; the service itself imports nothing of it."""
    kit: Path
    """The kit of the net's server, or of the Trust's client, as the framework's `provision` makes it."""
    work: Path
    """Where runs lie while they are under way."""

    @property
    def runtime(self) -> Runtime:
        """All in which the net's framework differs from others."""
        return RUNTIMES[self.framework]

    @property
    def source(self) -> str:
        """The CloudEvents source of what this net says."""
        return f"{super().source}/{self.net}"

    @property
    def group(self) -> str:
        """The consumer group: every net hears everything."""
        return f"{super().group}.{self.net}"


class ControllerSettings(NodeSettings):
    """What a net's controller is told. `trusts` are the Trusts of the net; a run can have those that are connected."""

    admin_kit: Path
    """The kit with which the hub's driver submits jobs."""
    s3_endpoint: str
    """Host and port, or a URL with its scheme."""
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str
    patience: dict[str, float] = Field(default_factory=dict[str, float])
    """A `flip_nnunet.patience.Patience` as JSON: how long a Trust that does not answer is waited for."""
    compute_profile: dict[str, Any] = Field(default_factory=lambda: {"name": "full", "processes": 8})
    """A `flip_nnunet.payload.ComputeProfile` as JSON: how much of nnU-Net's appetite the net's machines allow."""
    preparing_patience: Annotated[timedelta, Field(gt=timedelta())] = timedelta(hours=1)
    """How long a Trust has to say whether it is ready for a run."""
    ending_patience: Annotated[timedelta, Field(ge=timedelta())] = timedelta(minutes=5)
    """How long the net is kept for a Trust that has not said that a run has ended there, once its outcome is told."""
    resources: dict[TrustCode, Resources] = Field(default_factory=dict[TrustCode, Resources])
    """What the net has for a run at each Trust, as JSON; at a Trust that is not named nothing is matched."""

    @property
    def terms(self) -> Terms:
        """What the net says of its jobs."""
        return Terms(self.compute_profile, self.patience)

    @model_validator(mode="after")
    def _has_trusts(self) -> Self:
        if not self.trusts:
            raise ValueError("trusts: a net has at least one")
        if strangers := sorted(self.resources.keys() - self.trusts):
            raise ValueError(f"resources: no Trust of this net is called {', '.join(strangers)}")
        return self


class WorkerSettings(NodeSettings):
    """What a net's worker at a Trust is told."""

    data: Path
    """Where the Trust's imaging service keeps each project's images, labels and manifest."""
    frozen_cohort: SecretStr
    """DSN of a role that may read the frozen cohorts in the Trust's cohort database."""
    cohort_patience: Annotated[timedelta, Field(gt=timedelta())] = timedelta(minutes=10)
    """How long the cohort database may be down before the Trust says that it can't take part in a run."""
    minimum_cases: PositiveInt = 10
    """A Trust with fewer cases takes no part: their number would leave it."""
    predictions: Literal["masks", "scores"] = "scores"
    """What the Trust gives of what is predicted on its images: masks with their scores, or scores alone."""
    models: Path | None = None
    """Where the models lie that a prediction may name by their path at this Trust."""
    sandbox: dict[str, Any] = Field(default_factory=dict[str, Any])
    """A `flip_nnunet.sandbox.SandboxSettings` as JSON: the box of all that trains at this Trust."""

    @property
    def site(self) -> TrustCode:
        """The Trust's name in the federation."""
        if self.trust is None:
            raise ValueError("trust: a worker belongs to one")
        return self.trust

    @property
    def runs(self) -> Path:
        """The folder of prepared runs, absolute."""
        return self.work.absolute() / "runs"

    @property
    def site_environment(self) -> Mapping[str, str]:
        """What the framework's client is told of the Trust."""
        told = {
            "RUNS": str(self.runs),
            "MINIMUM_CASES": str(self.minimum_cases),
            "PREDICTIONS": self.predictions,
            "SANDBOX": json.dumps(self.sandbox),
        }
        if self.models is not None:
            told["MODELS"] = str(self.models.absolute())
        return self.runtime.site(told)
