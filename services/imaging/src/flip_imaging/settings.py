"""What `imaging` is told by its environment, in each of its roles."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from flip_chassis.settings import Settings
from pydantic import Field, SecretStr, model_validator

from flip_imaging.deidentify import Policy
from flip_imaging.domain import PullHours, Retries


class ImagingSettings(Settings):
    """The settings of the hub's role."""

    service = "imaging"

    role: Literal["hub"]


class TrustImagingSettings(Settings):
    """The settings of a Trust's role. A file with a secret holds it as text, without a line end."""

    service = "imaging"

    role: Literal["trust"]
    data: Path
    """Folder shared with the Trust's training workers: `projects/<project id>/` holds what they may read."""
    frozen_cohort: SecretStr
    """DSN of a role that may read the view `frozen.cohort_member` of the Trust's cohort service, and nothing else."""
    pseudonym_key_file: Path
    """The Trust's secret from which each project's key is derived; at least 32 bytes."""
    pacs_url: str
    """The PACS's DICOMweb root."""
    pacs_user: str
    pacs_password: SecretStr
    archive_url: str
    """The DICOMweb root of the archive's Orthanc."""
    archive_user: str
    archive_password: SecretStr
    dicom_ca_file: Path | None = None
    """The authority of the PACS's and the archive's certificates, where it is not a public one."""
    datasets: Path | None = None
    """Folder with ready nnU-Net data sets, `DatasetXYZ_name`, that the operator may register; it is only read."""
    disclosure_threshold: int = Field(default=10, ge=1)
    modalities: frozenset[str] = Policy().modalities
    """Which instances may enter the archive."""
    imports_at_once: int = Field(default=2, ge=1, le=64)
    pull_from_hour: int = Field(default=0, ge=0, le=23)
    pull_to_hour: int = Field(default=24, ge=1, le=24)
    reimport_cap: int = Field(default=5, ge=0)
    first_retry_s: float = Field(default=60, gt=0)
    transfer_s: float = Field(default=1800, gt=0)
    """How long bringing one study from the PACS may take."""
    lease_s: float = Field(default=30, gt=0)
    """How long after its worker was lost a study is taken up again."""

    @model_validator(mode="after")
    def _names_its_trust(self) -> Self:
        if self.trust is None:
            raise ValueError("FLIP_TRUST is needed in a Trust's role")
        return self

    @property
    def retries(self) -> Retries:
        """How failed studies are tried again."""
        return Retries(self.reimport_cap, timedelta(seconds=self.first_retry_s))

    @property
    def pull_hours(self) -> PullHours:
        """When the PACS may be asked."""
        return PullHours(self.pull_from_hour, self.pull_to_hour)
