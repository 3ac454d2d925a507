"""Which silence is suspicious: that of a stream of which the others show that it has something to say."""

from __future__ import annotations

from marketdata.events import Channel
from venues.feeds.due import DUE_NS, TOGETHER_NS, DueStreams

EVIDENCE = (Channel.TICKER, Channel.CANDLES)
LONG = 10 * DUE_NS


def test_a_stream_is_due_when_another_shows_what_it_lacks() -> None:
    streams = DueStreams()
    streams.note(Channel.TICKER, (), LONG)
    now_ns = LONG + TOGETHER_NS
    streams.note(Channel.TRADES, EVIDENCE, now_ns)

    assert streams.overdue(now_ns + DUE_NS - 1) == []
    assert streams.overdue(now_ns + DUE_NS) == [Channel.TICKER, Channel.CANDLES]
    streams.excuse(Channel.TICKER)
    assert streams.overdue(now_ns + 2 * DUE_NS) == [Channel.CANDLES]


def test_a_word_shortly_before_or_after_the_evidence_is_enough() -> None:
    streams = DueStreams()
    streams.note(Channel.TICKER, (), LONG)
    streams.note(Channel.TRADES, EVIDENCE, LONG + TOGETHER_NS - 1)
    streams.note(Channel.CANDLES, (), LONG + TOGETHER_NS)

    assert streams.overdue(LONG + LONG) == []


def test_a_market_in_which_nothing_happens_makes_nothing_due() -> None:
    streams = DueStreams()
    streams.note(Channel.TRADES, EVIDENCE, LONG)
    streams.note(Channel.TICKER, (), LONG)
    streams.note(Channel.CANDLES, (Channel.TRADES,), LONG)

    assert streams.overdue(LONG * LONG) == []


def test_after_a_lost_connection_nothing_is_due() -> None:
    streams = DueStreams()
    streams.note(Channel.TRADES, EVIDENCE, LONG)
    streams.clear()

    assert streams.overdue(LONG * LONG) == []
