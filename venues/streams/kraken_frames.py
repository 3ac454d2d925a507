"""Frames of Kraken's private WebSocket v2 channels to events.

Source: docs.kraken.com, WebSocket v2, ``executions`` and ``balances``. An order is told in steps
(``pending_new`` with everything, ``new``, ``trade`` for each fill, an end); only the first step and
trades name the symbol, so what an order is of is remembered. ccxt routes a frame by its first item
and drops the rest: here every item is read. Each channel counts its frames in ``sequence``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
from venues.ccxt.reading import FillTexts, fill_from
from venues.ccxt.texts import decimal_of, mapping, moment_of_rfc3339, rows, side_of
from venues.dust import round_down
from venues.model import OrderReport, VenueFill, VenueStatus
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
    "pending_new": VenueStatus.OPEN,
    "new": VenueStatus.OPEN,
    "partially_filled": VenueStatus.OPEN,
    "filled": VenueStatus.FILLED,
    "canceled": VenueStatus.CANCELLED,
    "expired": VenueStatus.EXPIRED,
}
MOVEMENTS: Final = frozenset({"deposit", "withdrawal", "transfer", "adjustment", "credit"})
ORDERS_MAX: Final = 20_000
"""Orders whose symbol and name are remembered."""


@dataclass(frozen=True, slots=True)
class _Order:
    symbol: str
    client_order_id: str


class KrakenFrames:
    """Reads the frames of one connection; `names` are the channel's symbols by the venue's own."""

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        assets: Mapping[str, Asset],
        account: str,
        *,
        names: Mapping[str, str],
    ) -> None:
        """Read trades of *instruments*, keyed as the venue's lists do; the mapping may grow.

        Args:
            instruments: what is traded, by the symbol of the venue's lists (``XXBTZUSD``).
            assets: every asset that may be traded or charged there, by code.
            account: our code of the account.
            names: the venue's symbol of lists by that of the channel (``BTC/USD``).
        """
        self._instruments = instruments
        self._assets = assets
        self._account = account
        self._names = names
        self._orders: OrderedDict[str, _Order] = OrderedDict()
        self._last: dict[str, int] = {}

    def read(self, frame: Any, now: datetime) -> tuple[StreamEvent, ...] | None:
        """Return the events of a frame; None: it is an answer to a request.

        Raises:
            BadInput: the frame cannot be read.
        """
        if not isinstance(frame, Mapping):
            raise BadInput(f"a frame is {type(frame).__name__}, not an object")
        channel = frame.get("channel")
        if channel in {"heartbeat", "status"}:
            return ()
        if channel not in {"executions", "balances"}:
            return None
        told = [mapping(row) for row in rows(frame.get("data"))]
        gap = self._counted(str(channel), frame, now)
        if gap is not None:
            return gap
        if channel == "executions":
            is_snapshot = frame.get("type") == "snapshot"
            found = [
                event for row in told for event in self._execution(row, is_snapshot=is_snapshot)
            ]
            return tuple(found)
        return self._balances(told, now)

    def _counted(
        self, channel: str, frame: Mapping[str, Any], now: datetime
    ) -> tuple[StreamEvent, ...] | None:
        """Return a gap if a number was left out, nothing for a frame that came twice, else None."""
        number = frame.get("sequence")
        if not isinstance(number, int) or isinstance(number, bool):
            raise BadInput("a frame has no sequence")
        last = self._last.get(channel)
        self._last[channel] = number
        if last is None or number == last + 1:
            return None
        if number == last:
            return ()
        detail = f"{channel} {number} came after {last}"
        return (StreamGap(now, GapReason.SEQUENCE, detail),)

    def _execution(self, row: Mapping[str, Any], *, is_snapshot: bool) -> tuple[StreamEvent, ...]:
        order_id = reading.word(row, "order_id")
        order = self._remember(order_id, row)
        if order is None:
            return ()  # of an order that began before us: its trades name the symbol
        grid = self._instruments.get(order.symbol)
        if grid is None:
            return (SymbolSeen(order.symbol),)
        report = OrderSeen(order.symbol, _report(row, order_id, order, grid))
        if row.get("exec_type") != "trade":
            return (report,)
        seen = FillSeen(self._fill(row, order_id, grid))
        # A snapshot of old trades says nothing new of their orders.
        return (seen,) if is_snapshot else (seen, report)

    def _remember(self, order_id: str, row: Mapping[str, Any]) -> _Order | None:
        known = self._orders.get(order_id)
        if "symbol" not in row:
            return known
        name = reading.word(row, "symbol")
        client = row.get("cl_ord_id")
        order = _Order(
            self._names.get(name, name),
            client if isinstance(client, str) else known.client_order_id if known else "",
        )
        self._orders[order_id] = order
        if len(self._orders) > ORDERS_MAX:
            self._orders.popitem(last=False)
        return order

    def _fill(self, row: Mapping[str, Any], order_id: str, grid: Instrument) -> VenueFill:
        fees = [mapping(fee) for fee in rows(row.get("fees"))]
        if len(fees) != 1:
            raise BadInput(f"a trade has {len(fees)} fees, and one was due")
        texts = FillTexts(
            side=side_of(reading.word(row, "side")),
            trade_id=reading.word(row, "exec_id"),
            venue_order_id=order_id,
            price=decimal_of(row, "last_price"),
            quantity=decimal_of(row, "last_qty"),
            cost=decimal_of(row, "cost"),
            fee=decimal_of(fees[0], "qty"),
            fee_asset=reading.word(fees[0], "asset"),
            is_maker=_is_maker(row),
            at=moment_of_rfc3339(reading.word(row, "timestamp")),
        )
        return fill_from(texts, grid, self._assets, self._account)

    def _balances(self, rows: list[Mapping[str, Any]], now: datetime) -> tuple[StreamEvent, ...]:
        known = [row for row in rows if reading.word(row, "asset") in self._assets]
        totals = {
            row["asset"]: reading.balance(
                self._assets[row["asset"]], decimal_of(row, "balance"), "0"
            )
            for row in known
        }
        moved = [
            FundsMoved(
                row["asset"],
                round_down(decimal_of(row, "amount"), self._assets[row["asset"]])[0],
                moment_of_rfc3339(reading.word(row, "timestamp")),
            )
            for row in known
            if row.get("type") in MOVEMENTS
        ]
        return (*moved, BalanceSeen(tuple(totals.values()), now))


def _report(row: Mapping[str, Any], order_id: str, order: _Order, grid: Instrument) -> OrderReport:
    status = reading.word(row, "order_status")
    if status not in STATUSES:
        raise BadInput(f"{status!r} is not an order status")
    client = row.get("cl_ord_id")
    executed = decimal_of(row, "cum_qty") if "cum_qty" in row else "0"
    return OrderReport(
        client_order_id=client if isinstance(client, str) else order.client_order_id,
        venue_order_id=order_id,
        status=STATUSES[status],
        executed_units=grid.base.parse(executed),
    )


def _is_maker(row: Mapping[str, Any]) -> bool:
    indicator = reading.word(row, "liquidity_ind")
    if indicator not in {"m", "t"}:
        raise BadInput(f"{indicator!r} does not say who made the market")
    return indicator == "m"
