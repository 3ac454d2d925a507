"""A collector of traces: takes OTLP over HTTP, as any other does, and keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it arrived; *parent* is 0 for a root."""

    name: str
    trace_id: int
    span_id: int
    parent: int
    links: Sequence[int]
    attributes: Mapping[str, Any]
    status: str
    process: int


@dataclass(slots=True)
class Collector:
    """What has arrived at *url*."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, entity_id: UUID) -> list[Seen]:
        """Return the spans in the trace of a thing."""
        return [span for span in self.spans if span.trace_id == entity_id.int]

    def names(self, entity_id: UUID) -> set[str]:
        return {span.name for span in self.of(entity_id)}

    async def until(self, has: Callable[[Collector], bool]) -> None:
        """Wait until what has arrived is enough."""
        async with asyncio.timeout(PATIENCE_S):
            while not has(self):
                self._arrived.clear()
                await self._arrived.wait()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        told = ExportTraceServiceRequest.FromString(body)
        for resource in told.resource_spans:
            facts = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(span, int(facts["process.pid"])) for span in scope.spans]
        self._arrived.set()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def _seen(span: Any, process: int) -> Seen:
    return Seen(
        name=span.name,
        trace_id=int.from_bytes(span.trace_id),
        span_id=int.from_bytes(span.span_id),
        parent=int.from_bytes(span.parent_span_id),
        links=[int.from_bytes(link.trace_id) for link in span.links],
        attributes=_values(span.attributes),
        status=span.status.message,
        process=process,
    )


def _values(pairs: Sequence[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Listen on a free port as long as the block."""
    collector = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()
