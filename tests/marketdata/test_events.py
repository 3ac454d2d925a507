"""What is written to recordings and rows keeps its meaning."""

from __future__ import annotations

import msgspec
import pytest

from marketdata.events import BookUpdate, Channel, GapReason
from marketdata.raw import RawItem, RawKind


def test_the_kinds_of_recorded_items_keep_their_numbers() -> None:
    assert {kind.name: kind.value for kind in RawKind} == {
        "CONNECTED": 1,
        "FRAME": 2,
        "SNAPSHOT": 3,
        "CHECK": 4,
        "LOST": 5,
        "TICK": 6,
    }


def test_channels_and_reasons_are_written_as_they_are_called() -> None:
    assert [*map(str, Channel)] == ["book", "trades", "best", "ticker", "candles"]
    assert all(str(reason) == reason.name.lower() for reason in GapReason)


def test_an_item_is_the_same_after_it_was_written_and_read() -> None:
    item = RawItem(RawKind.FRAME, 1_767_600_000_000_000_001, 3, "", b"\x00{}\xff")

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=RawItem) == item


def test_an_event_is_never_changed() -> None:
    event = BookUpdate(
        venue="sim",
        symbol="ETHUSDT",
        first=1,
        last=1,
        is_snapshot=False,
        bids=((99, 10**19),),
        asks=(),
        exchange_ns=0,
        received_ns=1,
    )

    with pytest.raises(AttributeError):
        event.last = 2  # type: ignore[misc]  # this is the test
