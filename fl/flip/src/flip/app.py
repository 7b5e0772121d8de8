"""`FLIP()`: the one object through which an app sees the platform."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flip.constants import ResourceType
from flip.data import ProjectData

if TYPE_CHECKING:
    import pandas as pd
    from nvflare.apis.fl_context import FLContext

LOCAL_DEV = "LOCAL_DEV"
DATA_VARIABLE, RESOURCES_VARIABLE = "FLIP_PROJECT_DATA", "FLIP_PROJECT_RESOURCES"
"""Where a Trust's trainer tells the app's process what it has prepared, and where added files go."""

_OFF = {"", "0", "false", "no"}


class HubOnly(RuntimeError):
    """Asked at a Trust for what only the hub does."""


class Hub(Protocol):
    """Where what an app says goes, beside what it returns."""

    def metric(self, label: str, value: float, fl_ctx: FLContext, x: float | None, axis: str | None) -> None:
        """Take a point of a metric."""
        ...

    def say(self, what: str) -> None:
        """Take a call that is meant for the hub. Raises `HubOnly` where there is nobody to take it."""
        ...


class ResearcherAtHome:
    """Local development: what would go to the hub is logged."""

    def __init__(self) -> None:
        self._log = logging.getLogger("flip")

    def metric(self, label: str, value: float, fl_ctx: FLContext, x: float | None, axis: str | None) -> None:
        self._log.info("metric %s = %s (%s %s)", label, value, axis or "round", "now" if x is None else x)

    def say(self, what: str) -> None:
        self._log.info("%s", what)


class Trust:
    """On the platform: metrics travel by events of the framework's channel; the hub keeps its own status."""

    def metric(self, label: str, value: float, fl_ctx: FLContext, x: float | None, axis: str | None) -> None:
        from flip.nvflare.events import fire_metric  # noqa: PLC0415 - a Flower app has no nvflare

        fire_metric(label, value, fl_ctx, x, axis)

    def say(self, what: str) -> None:
        raise HubOnly(f"{what}: the platform does this itself, at the hub")


class FLIP:
    """The platform as an app sees it.

    With `LOCAL_DEV` set it reads `DEV_DATAFRAME` (a CSV file) and `DEV_IMAGES_DIR` (one folder a study, named by its
    accession id); otherwise what the Trust has prepared. Raises ValueError naming the variable that is missing.
    """

    def __init__(self) -> None:
        local = os.environ.get(LOCAL_DEV, "").lower() not in _OFF
        self.logger = logging.getLogger("flip")
        self._data = _local_data(os.environ) if local else _trust_data(os.environ)
        self._hub: Hub = ResearcherAtHome() if local else Trust()

    def get_dataframe(self, project_id: str, query: str) -> pd.DataFrame:
        """The frozen cohort, with `accession_id` as text. `query` is not run.

        Raises `QueryDiffers` at a Trust if it is another query than the project's, or another project's.
        """
        return self._data.frame(project_id, query)

    def get_by_accession_number(
        self,
        project_id: str,
        accession_id: str,
        resource_type: ResourceType | Sequence[ResourceType] = ResourceType.NIFTI,
    ) -> Path:
        """The folder of a study; under it, at any depth, lie the files of each `resource_type`.

        Raises `StudyUnknown`, `ResourceMissing`, or `QueryDiffers` for another project.
        """
        kinds = [resource_type] if isinstance(resource_type, ResourceType) else list(resource_type)
        return self._data.study(project_id, str(accession_id), [ResourceType(kind) for kind in kinds])

    def add_resource(
        self, project_id: str, accession_id: str, scan_id: str, resource_id: str, files: Sequence[str | Path]
    ) -> None:
        """Have files stored with a study. They never leave the Trust."""
        self._data.add(project_id, str(accession_id), scan_id, resource_id, [Path(file) for file in files])

    def send_metrics_value(
        self,
        label: str,
        value: float,
        fl_ctx: FLContext,
        round: int | None = None,  # noqa: A002 - the name that apps use
        x_value: float | None = None,
        x_label: str | None = None,
    ) -> None:
        """A point of the metric `label`, shown for this Trust at `round`, or at `x_value` on the axis `x_label`.

        Without either it is shown at the round that is being trained.
        """
        self._hub.metric(str(label), float(value), fl_ctx, round if x_value is None else x_value, x_label)

    def send_handled_exception(self, formatted_exception: str, client_name: str, model_id: str) -> None:
        """Server side. An app need not: what it raises ends the run with the error's kind and place."""
        self._hub.say("send_handled_exception")

    def update_status(self, model_id: str, new_model_status: str) -> None:
        """Server side."""
        self._hub.say("update_status")

    def send_metrics(self, client_name: str, model_id: str, label: str, value: float, round: int) -> None:  # noqa: A002
        """Server side."""
        self._hub.say(f"send_metrics {label}")


def _local_data(environment: Mapping[str, str]) -> ProjectData:
    images = _path(environment, "DEV_IMAGES_DIR")
    return ProjectData(_path(environment, "DEV_DATAFRAME"), images, images.parent / "resources")


def _trust_data(environment: Mapping[str, str]) -> ProjectData:
    return ProjectData.of_trust(_path(environment, DATA_VARIABLE), _path(environment, RESOURCES_VARIABLE))


def _path(environment: Mapping[str, str], name: str) -> Path:
    given = environment.get(name, "")
    if not given:
        raise ValueError(f"{name}: is not set (without the platform, set {LOCAL_DEV}, DEV_DATAFRAME, DEV_IMAGES_DIR)")
    return Path(given)
