"""What can be seen from outside: structured logs, traces that follow `traceparent`, Prometheus metrics."""

import logging
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Counter, Gauge, Histogram
from structlog.types import Processor

SAID = Counter("flip_events_said_total", "Messages that the relay handed to Kafka and saw acknowledged")
HANDLED = Counter("flip_events_handled_total", "Messages that took effect here", ["type"])
REPEATED = Counter("flip_events_repeated_total", "Messages that came again and changed nothing")
PARKED = Gauge("flip_events_parked", "Messages that wait, because one of their key failed", ["kind"])
RELAY_HORIZON = Gauge("flip_relay_horizon_age_seconds", "How long ago the relay last opened a window; 0 on standby")
POLL_AGE = Gauge("flip_poll_age_seconds", "How long ago the broker last answered a fetch")
LAG = Gauge("flip_lag_records", "Records on the assigned partitions that were not polled yet")
HEARING_STARTED_ANEW = Counter("flip_hearing_started_anew_total", "How often a stuck consumer was started anew")
REQUESTS = Histogram("flip_http_request_seconds", "HTTP requests", ["method", "route", "status"])

log: structlog.stdlib.BoundLogger = structlog.get_logger()
_tracer = trace.get_tracer("flip")


def _with_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
    return event


def start_telemetry(service: str, environment: MutableMapping[str, str]) -> None:
    """One JSON object a line on standard output; spans to OTEL_EXPORTER_OTLP_ENDPOINT where it is set."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
    )
    structlog.contextvars.bind_contextvars(service=service)
    libraries = logging.StreamHandler(sys.stdout)
    libraries.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=logging.WARNING, handlers=[libraries])
    provider = TracerProvider(resource=Resource.create({"service.name": f"flip-{service}"}))
    if environment.get(OTEL_EXPORTER_OTLP_ENDPOINT):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def traceparent() -> str | None:
    """The current span as a W3C `traceparent`."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str) -> Generator[None]:
    """A span that continues `parent`, a `traceparent`, or else the current one."""
    context = propagate.extract({"traceparent": parent}) if parent else None
    with _tracer.start_as_current_span(name, context=context, attributes=attributes):
        yield
