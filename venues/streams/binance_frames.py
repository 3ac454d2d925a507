"""Frames of Binance's user data stream to events.

Source: binance-spot-api-docs, user-data-stream.md: ``executionReport``, ``outboundAccountPosition``,
``balanceUpdate``, ``eventStreamTerminated``; over the WebSocket API each comes as
``{"subscriptionId": n, "event": {…}}``. Their order within one symbol is guaranteed; there is no
counter, so what is missing shows only by asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
from venues.ccxt.reading import FillTexts, fill_from
from venues.ccxt.texts import decimal_of, mapping, moment, rows, side_of, truth_of, units_of
from venues.dust import round_down
from venues.model import OrderReport, VenueStatus
from venues.streams import reading
from venues.streams.model import (
    BalanceSeen,
    FillSeen,
    FundsMoved,
    GapReason,
    OrderSeen,
    StreamEvent,
    StreamGap,
    SymbolSeen,
)

STATUSES: Final = {
    "NEW": VenueStatus.OPEN,
    "PENDING_NEW": VenueStatus.OPEN,
    "PARTIALLY_FILLED": VenueStatus.OPEN,
    "PENDING_CANCEL": VenueStatus.OPEN,
    "FILLED": VenueStatus.FILLED,
    "CANCELED": VenueStatus.CANCELLED,
    "EXPIRED": VenueStatus.EXPIRED,
    "EXPIRED_IN_MATCH": VenueStatus.EXPIRED,
    "REJECTED": VenueStatus.REJECTED,
}
TRADE: Final = "TRADE"
NO_NAME: Final = frozenset({"", "null"})
"""``C``, the client id an order had before a cancel, when there was no cancel."""


class BinanceFrames:
    """Reads the frames of one connection."""

    def __init__(
        self, instruments: Mapping[str, Instrument], assets: Mapping[str, Asset], account: str
    ) -> None:
        """Read trades of *instruments*, keyed by the venue's symbol; the mapping may grow."""
        self._instruments = instruments
        self._assets = assets
        self._account = account

    def read(self, frame: Any, now: datetime) -> tuple[StreamEvent, ...] | None:
        """Return the events of a frame; None: it is an answer to a request.

        Raises:
            BadInput: the frame cannot be read.
        """
        if not isinstance(frame, Mapping):
            raise BadInput(f"a frame is {type(frame).__name__}, not an object")
        if "event" not in frame:
            return None
        event = mapping(frame["event"])
        match event.get("e"):
            case "executionReport":
                return self._execution(event)
            case "outboundAccountPosition":
                return (self._position(event),)
            case "balanceUpdate":
                return self._moved(event)
            case "eventStreamTerminated":
                return (StreamGap(now, GapReason.REFUSED, "the venue ended the subscription"),)
            case "listStatus" | "externalLockUpdate":
                return ()
            case other:
                raise BadInput(f"there is no event {other!r} in the user data stream")

    def _execution(self, event: Mapping[str, Any]) -> tuple[StreamEvent, ...]:
        symbol = reading.word(event, "s")
        grid = self._instruments.get(symbol)
        if grid is None:
            return (SymbolSeen(symbol),)
        report = OrderSeen(symbol, _report(event, grid))
        if event.get("x") != TRADE:
            return (report,)
        texts = FillTexts(
            side=side_of(reading.word(event, "S")),
            trade_id=reading.word(event, "t"),
            venue_order_id=reading.word(event, "i"),
            price=decimal_of(event, "L"),
            quantity=decimal_of(event, "l"),
            cost=decimal_of(event, "Y"),
            fee=decimal_of(event, "n"),
            fee_asset=reading.word(event, "N"),
            is_maker=truth_of(event, "m"),
            at=moment(reading.word(event, "T")),
        )
        trade = fill_from(texts, grid, self._assets, self._account)
        # The fill first: an order is never on record as filled before its fills are.
        return (FillSeen(trade), report)

    def _position(self, event: Mapping[str, Any]) -> BalanceSeen:
        told = [mapping(row) for row in rows(event.get("B"))]
        return BalanceSeen(
            tuple(
                reading.balance(
                    self._assets[reading.word(row, "a")],
                    decimal_of(row, "f"),
                    decimal_of(row, "l"),
                )
                for row in told
                if reading.word(row, "a") in self._assets
            ),
            moment(reading.word(event, "u")),
        )

    def _moved(self, event: Mapping[str, Any]) -> tuple[StreamEvent, ...]:
        code = reading.word(event, "a")
        if code not in self._assets:
            return ()
        units, _ = round_down(decimal_of(event, "d"), self._assets[code])
        return (FundsMoved(code, units, moment(reading.word(event, "T"))),)


def _report(event: Mapping[str, Any], grid: Instrument) -> OrderReport:
    status = reading.word(event, "X")
    if status not in STATUSES:
        raise BadInput(f"{status!r} is not an order status")
    before = event.get("C")
    named_before = isinstance(before, str) and before not in NO_NAME
    return OrderReport(
        client_order_id=str(before) if named_before else reading.word(event, "c"),
        venue_order_id=reading.word(event, "i"),
        status=STATUSES[status],
        executed_units=units_of(event, "z", grid.base),
    )
