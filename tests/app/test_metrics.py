"""The figures for Prometheus: read back by Prometheus' own parser."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Figures, QueueFigures, exposition, served
from kernel.clock import ManualClock
from kernel.errors import OutsideUnavailable
from marketdata.events import Channel
from marketdata.model import StreamState, StreamStatus

CLOCK = ManualClock()
LABELS = {"venue": "binance", "symbol": "ETHUSDT", "channel": "book"}


def status(**changes: Any) -> StreamStatus:
    usual: dict[str, Any] = {
        "venue": "binance",
        "symbol": "ETHUSDT",
        "channel": Channel.BOOK,
        "state": StreamState.LIVE,
        "since": CLOCK.now() - timedelta(seconds=90),
        "last_event_at": CLOCK.now() - timedelta(seconds=2.5),
        "sequence": 7,
        "gaps": 3,
        "reconnects": 2,
        "messages": 1_000,
    }
    return StreamStatus(**(usual | changes))


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(figures: Figures, name: str, **labels: str) -> float:
    return samples(exposition(figures, CLOCK))[name, tuple(sorted(labels.items()))]


def test_every_stream_tells_its_messages_age_gaps_and_reconnects() -> None:
    figures = Figures(streams=lambda: [status()])

    assert value(figures, "causeway_stream_messages_total", **LABELS) == 1_000
    assert value(figures, "causeway_stream_gaps_total", **LABELS) == 3
    assert value(figures, "causeway_stream_reconnects_total", **LABELS) == 2
    assert value(figures, "causeway_stream_age_seconds", **LABELS) == 2.5
    assert value(figures, "causeway_stream_state_seconds", **LABELS) == 90
    assert value(figures, "causeway_stream_live", **LABELS) == 1


@pytest.mark.parametrize("state", StreamState)
def test_a_stream_is_in_one_state(state: StreamState) -> None:
    figures = Figures(streams=lambda: [status(state=state)])

    assert {
        name: value(figures, "causeway_stream_state", **LABELS, state=str(name))
        for name in StreamState
    } == {name: float(name is state) for name in StreamState}


def test_a_stream_that_needs_attention_says_why() -> None:
    down = Figures(streams=lambda: [status(state=StreamState.DOWN)])
    silent = Figures(streams=lambda: [status(last_event_at=CLOCK.now() - timedelta(minutes=3))])

    assert value(down, "causeway_stream_alarm", **LABELS, why="down") == 1
    assert value(silent, "causeway_stream_alarm", **LABELS, why="silent") == 1
    assert value(silent, "causeway_stream_alarm", **LABELS, why="down") == 0


def test_queues_tell_how_full_they_are_and_what_they_dropped() -> None:
    figures = Figures(
        queues=lambda: {"a": QueueFigures(81, 100, 0), "b": QueueFigures(0, 100, 5)},
        counters=lambda: {("recorded_items", "kraken"): 12},
    )

    assert value(figures, "causeway_queue_depth", queue="a") == 81
    assert value(figures, "causeway_queue_alarm", queue="a") == 1
    assert value(figures, "causeway_queue_dropped_total", queue="b") == 5
    assert value(figures, "causeway_queue_alarm", queue="b") == 1
    assert value(figures, "causeway_recorded_items_total", venue="kraken") == 12


async def test_they_are_served_on_loopback_as_they_are_at_the_moment_of_the_question() -> None:
    streams: list[StreamStatus] = []
    async with (
        served(Figures(streams=lambda: streams), CLOCK, port=0) as url,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(url) as answer:
            before = await answer.read()
        streams.append(status())
        async with session.get(url) as answer:
            after = await answer.read()

    assert url.startswith("http://127.0.0.1:")
    assert b'symbol="ETHUSDT"' not in before
    assert b'symbol="ETHUSDT"' in after
    assert answer.content_type == "text/plain"


async def test_a_port_that_is_taken_is_said() -> None:
    async with served(Figures(), CLOCK, port=0) as url:
        taken = int(url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(OutsideUnavailable, match="metrics_port"):
            async with served(Figures(), CLOCK, port=taken):
                pass
