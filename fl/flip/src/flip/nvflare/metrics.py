"""Metrics of NVFLARE apps, as a function."""

from __future__ import annotations

from nvflare.apis.fl_context import FLContext

from flip.app import FLIP


def send_metrics_value(
    label: str,
    value: float,
    fl_ctx: FLContext,
    round: int | None = None,  # noqa: A002 - the name that apps use
    flip: FLIP | None = None,
    x_value: float | None = None,
    x_label: str | None = None,
) -> None:
    """`FLIP.send_metrics_value`, of `flip` if it is given."""
    (flip or FLIP()).send_metrics_value(label, value, fl_ctx, round, x_value, x_label)
