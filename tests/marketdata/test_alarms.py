"""When a stream or a queue needs attention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from marketdata.alarms import Alarm, Thresholds, queue_alarm, stream_alarm
from marketdata.events import Channel
from marketdata.model import StreamState, StreamStatus

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
LIMITS = Thresholds(
    down_max=timedelta(seconds=10), age_max=timedelta(seconds=60), told_max=timedelta(seconds=30)
)


def told(state: StreamState, *, since_s: int, age_s: int | None, told_s: int = 0) -> Alarm | None:
    status = StreamStatus(
        venue="v",
        symbol="s",
        channel=Channel.BOOK,
        state=state,
        since=NOW - timedelta(seconds=since_s),
        last_event_at=None if age_s is None else NOW - timedelta(seconds=age_s),
        sequence=0,
        gaps=0,
        reconnects=0,
        messages=0,
    )
    told_at = NOW - timedelta(seconds=told_s)
    return stream_alarm(status, now=NOW, told_at=told_at, thresholds=LIMITS)


@pytest.mark.parametrize(
    ("state", "since_s", "age_s", "told_s", "alarm"),
    [
        (StreamState.LIVE, 100, 60, 0, None),
        (StreamState.LIVE, 100, 61, 0, Alarm.SILENT),
        (StreamState.LIVE, 100, 0, 30, None),
        (StreamState.LIVE, 100, 0, 31, Alarm.UNTOLD),
        (StreamState.LIVE, 61, None, 0, Alarm.SILENT),
        (StreamState.LIVE, 1, None, 0, None),
        (StreamState.DOWN, 10, 5, 0, None),
        (StreamState.DOWN, 11, 5, 0, Alarm.DOWN),
        (StreamState.SYNCING, 11, None, 0, Alarm.DOWN),
        (StreamState.STALE, 11, 11, 0, Alarm.DOWN),
        (StreamState.CONNECTING, 1, None, 0, None),
    ],
)
def test_a_stream_needs_attention_past_its_limits_and_not_before(
    state: StreamState, since_s: int, age_s: int | None, told_s: int, alarm: Alarm | None
) -> None:
    assert told(state, since_s=since_s, age_s=age_s, told_s=told_s) is alarm


@pytest.mark.parametrize(
    ("depth", "dropped", "alarm"),
    [(80, 0, None), (81, 0, Alarm.FULL), (0, 1, Alarm.DROPPED), (100, 1, Alarm.DROPPED)],
)
def test_a_queue_needs_attention_when_nearly_full_or_after_it_dropped(
    depth: int, dropped: int, alarm: Alarm | None
) -> None:
    assert queue_alarm(depth, 100, dropped) is alarm
