"""What machines share: the bookkeeping of gaps, books compared, states counted."""

from __future__ import annotations

import pytest

from kernel.clock import from_unix_ns
from marketdata.book import L2Book
from marketdata.events import BestSeen, BookUpdate, Channel, GapReason, GapSeen, Rows, TradeSeen
from marketdata.model import StreamState
from venues.feeds.cross_check import differences
from venues.feeds.gap_log import RETRY_NS_MAX, StreamGaps
from venues.feeds.status import StatusBoard

BIDS: Rows = ((99, 5), (98, 6), (97, 7))
ASKS: Rows = ((101, 5), (102, 6), (103, 7))


def gaps() -> StreamGaps:
    return StreamGaps("sim", "ETHUSDT", Channel.TRADES)


def test_a_gap_begins_where_the_stream_was_last_complete() -> None:
    log = gaps()
    log.good_ns = 70
    (opened,) = log.open(GapReason.SEQUENCE, "5 after 3", 100)
    (ended,) = log.end(130)

    assert (opened.since_ns, opened.until_ns, opened.received_ns) == (70, 0, 100)
    assert (ended.since_ns, ended.until_ns, ended.detail) == (70, 130, "5 after 3")
    assert log.good_ns == 130


def test_a_fault_while_a_gap_is_open_is_part_of_it() -> None:
    log = gaps()
    log.open(GapReason.CLOSED, "", 100)

    assert log.open(GapReason.CROSSED, "", 110) == ()
    assert log.reason is GapReason.CLOSED
    assert log.reopen(GapReason.CLOSED, "", 120) == ()
    ended, opened = log.reopen(GapReason.REFUSED, "no such stream", 130)
    assert (ended.reason, ended.until_ns) == (GapReason.CLOSED, 130)
    assert (opened.reason, opened.since_ns) == (GapReason.REFUSED, 130)


def test_a_stream_that_is_complete_has_no_gap_to_end() -> None:
    log = gaps()
    assert log.end(5) == ()
    assert not log.is_open


def test_a_clock_that_was_set_back_makes_no_gap_that_ends_before_it_begins() -> None:
    log = gaps()
    log.good_ns = 500
    (opened,) = log.open(GapReason.CLOSED, "", 100)
    (ended,) = log.end(50)

    assert opened.since_ns == 100
    assert ended.until_ns == 100


def test_pauses_grow_and_have_an_end() -> None:
    log, found = gaps(), []
    for log.strikes in range(70):
        found.append(log.retry_ns())

    assert found == sorted(found)
    assert found[-1] == RETRY_NS_MAX


def book(bids: Rows = BIDS, asks: Rows = ASKS) -> L2Book:
    made = L2Book("sim", "ETHUSDT")
    made.snapshot(10, bids, asks)
    return made


def update(first: int, bids: Rows = (), asks: Rows = ()) -> BookUpdate:
    return BookUpdate(
        venue="sim",
        symbol="ETHUSDT",
        first=first,
        last=first,
        is_snapshot=False,
        bids=bids,
        asks=asks,
        exchange_ns=0,
        received_ns=0,
    )


@pytest.mark.parametrize(
    ("bids", "asks", "is_whole", "told"),
    [
        (BIDS, ASKS, True, ""),
        (BIDS[:2], ASKS[:2], False, ""),
        (BIDS[:2], ASKS[:2], True, "bid 97: ours 7, theirs 0, ask 103: ours 7, theirs 0"),
        (((99, 4), *BIDS[1:]), ASKS, False, "bid 99: ours 5, theirs 4"),
        (((100, 1), *BIDS), ASKS, False, "bid 100: ours 0, theirs 1"),
        (BIDS, ASKS[1:], False, "ask 101: ours 5, theirs 0"),
        ((*BIDS, (96, 1)), ASKS, False, ""),
        ((*BIDS, (96, 1)), ASKS, True, "bid 96: ours 0, theirs 1"),
        ((), (), True, "bid 99: ours 5, theirs 0, ask 101: ours 5, theirs 0"),
    ],
)
def test_a_book_is_compared_as_far_as_both_reach(
    bids: Rows,
    asks: Rows,
    is_whole: bool,  # noqa: FBT001  a column of the table
    told: str,
) -> None:
    assert differences(book(), bids, asks, later=(), is_whole=is_whole) == told


def test_of_many_differences_the_first_are_told() -> None:
    other = tuple((ticks, units + 1) for ticks, units in BIDS)

    told = differences(book(), other, ASKS[1:], later=(), is_whole=False)
    assert told.startswith("bid 99: ours 5, theirs 6, bid 98")
    assert told.endswith("and 1 more")


def test_levels_that_were_touched_since_the_answer_are_not_compared() -> None:
    ours = book()
    later = update(11, bids=((99, 0),), asks=((101, 9),))
    ours.apply(11, 11, later.bids, later.asks)

    assert differences(ours, BIDS, ASKS, later=[later], is_whole=True) == ""
    assert differences(ours, BIDS, ASKS, later=[], is_whole=True) != ""


def gap(reason: GapReason, since: int, until: int = 0, received: int = 0) -> GapSeen:
    return GapSeen(
        venue="sim",
        symbol="ETHUSDT",
        channel=Channel.BOOK,
        reason=reason,
        since_ns=since,
        until_ns=until,
        detail="why",
        received_ns=received or until or since,
    )


def test_a_state_follows_the_gaps_and_counts_go_up() -> None:
    board, micro = StatusBoard("sim"), 1_000
    assert board.statuses() == ()
    board.note(gap(GapReason.STARTED, 1 * micro))
    (first,) = board.statuses()
    board.note(gap(GapReason.STARTED, 1 * micro, 2 * micro))
    board.note(update(7))
    (live,) = board.statuses()
    board.note(gap(GapReason.SILENT, 3 * micro))
    board.note(gap(GapReason.STARTED, 1 * micro, 2 * micro))
    (stale,) = board.statuses()
    board.note(gap(GapReason.SILENT, 3 * micro, 5 * micro))
    board.note(gap(GapReason.CLOSED, 6 * micro))
    (down,) = board.statuses()

    assert (first.state, first.detail) == (StreamState.SYNCING, "started: why")
    assert (live.state, live.since, live.sequence) == (
        StreamState.LIVE,
        from_unix_ns(2 * micro),
        7,
    )
    assert (stale.state, stale.gaps) == (StreamState.STALE, 2), "an amended gap ends no other"
    assert (down.state, down.gaps, down.messages) == (StreamState.DOWN, 3, 1)


def test_each_stream_has_the_number_of_its_own_last_message() -> None:
    board = StatusBoard("sim")
    for trade_id in ("41", "T-42"):
        board.note(
            TradeSeen(
                venue="sim",
                symbol="ETHUSDT",
                trade_id=trade_id,
                ticks=1,
                units=1,
                buyer_is_maker=True,
                exchange_ns=0,
                received_ns=9_000,
            )
        )
    board.note(
        BestSeen(
            venue="sim",
            symbol="ETHUSDT",
            sequence=77,
            bid_ticks=1,
            bid_units=1,
            ask_ticks=2,
            ask_units=1,
            exchange_ns=0,
            received_ns=9_000,
        )
    )

    found = {one.channel: one for one in board.statuses()}
    assert (found[Channel.TRADES].sequence, found[Channel.TRADES].messages) == (41, 2)
    assert found[Channel.BEST].sequence == 77
    assert found[Channel.BEST].last_event_at == from_unix_ns(9_000)
