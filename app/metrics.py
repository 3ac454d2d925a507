"""Figures for Prometheus, at ``/metrics`` on loopback: every stream, every queue, every recorder.

Nothing is counted here: at each scrape the streams are asked how they are. Labels are our codes of
venues, their symbols, and channels; secrets are in none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kernel.clock import Clock
from kernel.errors import OutsideUnavailable
from marketdata.alarms import THRESHOLDS, Alarm, Thresholds, queue_alarm, stream_alarm
from marketdata.model import StreamState, StreamStatus

HOST: Final = "127.0.0.1"
PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format that Prometheus reads (Prometheus docs, exposition formats)."""
STREAM: Final = ("venue", "symbol", "channel")
SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How full a bounded queue is, and how much it has dropped since the process began."""

    depth: int
    room: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Where the figures come from; each is asked at every scrape.

    Attributes:
        streams: the state of every stream.
        queues: by name.
        counters: other counts by name, as ``recorded_items``; label is the venue.
    """

    streams: Callable[[], Sequence[StreamStatus]] = tuple
    queues: Callable[[], Mapping[str, QueueFigures]] = dict
    counters: Callable[[], Mapping[tuple[str, str], int]] = dict
    thresholds: Thresholds = field(default=THRESHOLDS)


class MarketDataCollector(Collector):
    """Makes the metrics of market data at each scrape."""

    def __init__(self, figures: Figures, clock: Clock) -> None:
        """Ask *figures* at each scrape; ages are by *clock*."""
        self._figures = figures
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        yield from self._streams(self._figures.streams())
        yield from self._queues(self._figures.queues())
        families: dict[str, CounterMetricFamily] = {}
        for (name, venue), count in sorted(self._figures.counters().items()):
            family = families.setdefault(
                name,
                CounterMetricFamily(
                    f"causeway_{name}", f"{name.replace('_', ' ')} of a venue", labels=("venue",)
                ),
            )
            family.add_metric((venue,), count)
        yield from families.values()

    def _streams(self, statuses: Sequence[StreamStatus]) -> Iterator[Metric]:
        now = self._clock.now()
        state = _gauge("causeway_stream_state", "1 for the state it is in", (*STREAM, "state"))
        live = _gauge("causeway_stream_live", "1 while its data may be used")
        in_state = _gauge("causeway_stream_state_seconds", "How long it has been in its state")
        age = _gauge("causeway_stream_age_seconds", "Since its last message, by our clock")
        alarm = _gauge(
            "causeway_stream_alarm", "1 while it needs attention, and why", (*STREAM, "why")
        )
        messages = _counter("causeway_stream_messages", "Messages since the process began")
        gaps = _counter("causeway_stream_gaps", "Gaps since the process began")
        reconnects = _counter("causeway_stream_reconnects", "Connections made again")
        for item in statuses:
            labels = (item.venue, item.symbol, str(item.channel))
            for name in StreamState:
                state.add_metric((*labels, str(name)), int(item.state is name))
            live.add_metric(labels, int(item.state is StreamState.LIVE))
            in_state.add_metric(labels, max(0.0, (now - item.since) / SECOND))
            if item.last_event_at is not None:
                age.add_metric(labels, max(0.0, (now - item.last_event_at) / SECOND))
            found = stream_alarm(item, now=now, told_at=now, thresholds=self._figures.thresholds)
            for kind in (Alarm.DOWN, Alarm.SILENT):
                alarm.add_metric((*labels, kind.name.lower()), int(found is kind))
            messages.add_metric(labels, item.messages)
            gaps.add_metric(labels, item.gaps)
            reconnects.add_metric(labels, item.reconnects)
        yield from (state, live, in_state, age, alarm, messages, gaps, reconnects)

    def _queues(self, queues: Mapping[str, QueueFigures]) -> Iterator[Metric]:
        labels = ("queue",)
        depth = _gauge("causeway_queue_depth", "Items waiting", labels)
        room = _gauge("causeway_queue_room", "Items there is room for", labels)
        alarm = _gauge("causeway_queue_alarm", "1 while it needs attention", labels)
        dropped = CounterMetricFamily(
            "causeway_queue_dropped", "Items dropped because it was full", labels=labels
        )
        for name, item in sorted(queues.items()):
            depth.add_metric((name,), item.depth)
            room.add_metric((name,), item.room)
            dropped.add_metric((name,), item.dropped)
            found = queue_alarm(
                item.depth, item.room, item.dropped, thresholds=self._figures.thresholds
            )
            alarm.add_metric((name,), int(found is not None))
        yield from (depth, room, alarm, dropped)


def exposition(figures: Figures, clock: Clock) -> bytes:
    """Return the figures as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MarketDataCollector(figures, clock))
    return generate_latest(registry)


@contextlib.asynccontextmanager
async def served(figures: Figures, clock: Clock, *, port: int) -> AsyncIterator[str]:
    """Serve the figures on loopback while the context is open; gives the address.

    Args:
        figures: what is told.
        clock: ages are by it.
        port: 0 takes any free one.

    Raises:
        OutsideUnavailable: the port is taken.
    """

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=exposition(figures, clock), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise OutsideUnavailable(
                f"metrics cannot be served: {error.strerror}",
                where=f"{HOST}:{port}",
                remedy="Name a free port as metrics_port in the house file, or 0",
            ) from error
        host, taken = runner.addresses[0][:2]
        yield f"http://{host}:{taken}{PATH}"
    finally:
        await runner.cleanup()


def _gauge(name: str, text: str, labels: tuple[str, ...] = STREAM) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=STREAM)
