"""A metric as an event of NVFLARE's own analytics, so that apps that use these directly are heard, too."""

from __future__ import annotations

from typing import Any

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo

X_VALUE, X_LABEL = "x_value", "x_label"
"""Where a point's place on its axis stands in the event's data, beside NVFLARE's `global_step`."""


def fire_metric(label: str, value: float, fl_ctx: FLContext, x: float | None, axis: str | None) -> None:
    """Fire a point of a metric; None means the round that is being trained."""
    place: dict[str, Any] = {key: given for key, given in ((X_VALUE, x), (X_LABEL, axis)) if given is not None}
    dxo = create_analytic_dxo(label, value, AnalyticsDataType.SCALAR, **place)
    send_analytic_dxo(FLComponent(), dxo, fl_ctx, ANALYTIC_EVENT_TYPE)
