"""Spans sent to a collector over OTLP/HTTP. Needs the extra ``telemetry``; imported only where it is on.

Spans leave in batches from a thread of its own; a collector that does not answer costs spans, never work.
Headers that let us in come from OpenTelemetry's own ``OTEL_EXPORTER_OTLP_HEADERS``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import Tracer as OtelTracer

from kernel import tracing
from kernel.redaction import redact, redact_text
from kernel.telemetry import OfLibraries
from kernel.tracing import Attributes, TraceContext

PATH: Final = "/v1/traces"
SCOPE: Final = "causeway"
EVERY_MS: Final = 500
"""Between two batches: a process that is killed takes what it did last with it."""
QUEUE_MAX: Final = 4_096
BATCH_MAX: Final = 512
TIMEOUT_S: Final = 2.0
"""For one batch: what a stop may have to wait for a collector that does not answer."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOBODY: Final = SpanContext(0, 0, is_remote=False)
_WANTED: Final[ContextVar[TraceContext | None]] = ContextVar("causeway_span_wanted", default=None)
"""Which span the one that is being made has to be."""


@contextmanager
def exporting(
    url: str, *, service: str, exporter: SpanExporter | None = None
) -> Iterator[Callable[[], bool]]:
    """Trace this process as long as the block, and send what there is at its end.

    Gives a function that sends what there is now.

    Args:
        url: of the collector, ``http://127.0.0.1:4318``; with or without ``/v1/traces``.
        service: what the process is called.
        exporter: where spans go instead of *url*.
    """
    _keep_quiet()
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "process.pid": os.getpid()}),
        # What the environment says of sampling would take steps out of a payment's life.
        sampler=ALWAYS_ON,
        id_generator=_Ids(),
        shutdown_on_exit=False,
    )
    target = url.rstrip("/")
    endpoint = target if target.endswith(PATH) else target + PATH
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint, timeout=TIMEOUT_S),
            max_queue_size=QUEUE_MAX,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=BATCH_MAX,
            export_timeout_millis=TIMEOUT_S * 1_000,
        )
    )
    tracing.install(_Tracer(provider.get_tracer(SCOPE)))
    try:
        yield provider.force_flush
    finally:
        tracing.install(None)
        provider.shutdown()


def _keep_quiet() -> None:
    """Say of a collector that does not answer what a log says, and nothing where there is no log.

    A command's standard error is for its own errors; and what the exporter says may name the address.
    """
    if not any(isinstance(item, OfLibraries) for item in logging.getLogger().handlers):
        quiet = logging.getLogger("opentelemetry")
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())


class _Ids(IdGenerator):
    """Random ids, but for a span that is told which it is."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        wanted = _WANTED.get()
        return self._random.generate_trace_id() if wanted is None else wanted.trace_id

    def generate_span_id(self) -> int:
        wanted = _WANTED.get()
        return self._random.generate_span_id() if wanted is None else wanted.span_id


@dataclass(frozen=True, slots=True)
class _Span:
    """See `kernel.tracing.Span`."""

    span: OtelSpan
    context: TraceContext

    def say(self, name: str, value: str | int | bool) -> None:  # noqa: FBT001  as the protocol has it
        self.span.set_attribute(name, redact(name, value))

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            said = redact_text(str(error))
            self.span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {said}"))
        self.span.end()


@dataclass(frozen=True, slots=True)
class _Tracer:
    """See `kernel.tracing.Tracer`."""

    tracer: OtelTracer

    def start(
        self,
        name: str,
        *,
        parent: TraceContext | None = None,
        root: TraceContext | None = None,
        links: Sequence[TraceContext] = (),
        attributes: Attributes | None = None,
    ) -> _Span:
        above = NonRecordingSpan(_NOBODY if parent is None else _outside(parent))
        wanted = _WANTED.set(root)
        try:
            span = self.tracer.start_span(
                redact_text(name),
                context=set_span_in_context(above),
                kind=SpanKind.INTERNAL,
                links=[Link(_outside(item)) for item in links],
                attributes={key: redact(key, value) for key, value in (attributes or {}).items()},
            )
        finally:
            _WANTED.reset(wanted)
        made = span.get_span_context()
        return _Span(span, TraceContext(made.trace_id, made.span_id))


def _outside(place: TraceContext) -> SpanContext:
    return SpanContext(place.trace_id, place.span_id, is_remote=True, trace_flags=_SAMPLED)
