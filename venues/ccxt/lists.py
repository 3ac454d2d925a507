"""Lists of an account read to their end: ended orders, the history of trades, the trades of an order.

A list counts as evidence only when it is complete: whatever is cut off raises. Rows are what ccxt
makes of the venue's, unread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Protocol

from kernel.clock import to_unix_ms
from kernel.errors import BadInput
from venues.capabilities import CallClass, Capabilities, FillPaging
from venues.ccxt.agreement import spellings_of
from venues.ccxt.kraken_ledger import LedgerFees
from venues.ccxt.texts import mapping, moment_of_seconds, rows, text_of
from venues.errors import VenueUnavailable

PAGES_MAX: Final = 50
"""Pages of one list; a longer one is not taken for complete."""
COUNTS_MAX: Final = 5
"""Times a list may change under our eyes while one page of it is read."""
IDS_PER_QUERY: Final = 20
"""Trades that Kraken tells about at once."""

Row = Mapping[str, Any]
Ask = Callable[[CallClass, Callable[[], Awaitable[Any]]], Awaitable[Any]]

_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Span:
    """Which orders are wanted: those made since, of one client order id if it is named.

    `page_max` is how many rows the venue tells at once.
    """

    since_ms: int
    page_max: int
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A page of trades, oldest first, and where the next one begins."""

    rows: list[Row]
    cursor: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Window:
    """Trades from *start* (seconds) on, of which the `read` oldest are known; a page at `offset`."""

    start: int
    read: int
    offset: int


class Lists(Protocol):
    """How one dialect's lists are read; `ask` raises `VenueUnavailable` for what fails."""

    async def ended(self, reader: Any, ask: Ask, market: Row, span: Span) -> list[Row]:
        """Return the market's orders of a span: at least all that have ended."""
        ...

    async def history(
        self, reader: Any, ask: Ask, market: Row, cursor: str, record: Capabilities
    ) -> History:
        """Return a page of our trades of a market."""
        ...

    async def of_order(self, reader: Any, ask: Ask, market: Row, venue_order_id: str) -> list[Row]:
        """Return the trades of one order."""
        ...


class UnifiedLists:
    """By ccxt's unified calls."""

    async def ended(self, reader: Any, ask: Ask, market: Row, span: Span) -> list[Row]:
        """Read orders oldest first, each page from the last order's time on."""
        fetch = reader.fetch_orders if reader.has.get("fetchOrders") else reader.fetch_closed_orders
        found: list[Row] = []
        start, limit = span.since_ms, span.page_max
        for _ in range(PAGES_MAX):
            call = _bound(fetch, market["symbol"], start, limit)
            page = rows(await ask(CallClass.LIST_RECENT, call))
            found += page
            if len(page) < limit:
                return found
            last = int(text_of(mapping(page[-1]), "timestamp"))
            if last <= start:
                break
            start = last
        raise VenueUnavailable(f"there are more orders of {market['id']} than can be listed")

    async def history(
        self, reader: Any, ask: Ask, market: Row, cursor: str, record: Capabilities
    ) -> History:
        """Read trades from an id on, or from a time on."""
        limit = record.fills_page_max
        if record.wire.fill_paging is FillPaging.FROM_ID:
            parameters = {record.wire.from_id_field: cursor or "0"}
            call = _bound(reader.fetch_my_trades, market["symbol"], None, limit, parameters)
            found = _by_id(rows(await ask(CallClass.FILLS, call)))
            return History(found, _behind(found, cursor), len(found) < limit)
        call = _bound(reader.fetch_my_trades, market["symbol"], int(cursor or 0), limit, {})
        found = _by_time(rows(await ask(CallClass.FILLS, call)))
        return _since(found, cursor, limit, record.settling_margin // _MILLISECOND)

    async def of_order(self, reader: Any, ask: Ask, market: Row, venue_order_id: str) -> list[Row]:
        """Read the trades of one order."""
        call = _bound(reader.fetch_order_trades, venue_order_id, market["symbol"])
        return _by_id(rows(await ask(CallClass.FILLS, call)))


class KrakenLists:
    """By Kraken's own calls: newest first, over all pairs, with a count of the whole window.

    A cursor is ``<from, in seconds>:<rows already read from there>``. While the window has one end,
    its oldest rows stay the oldest; if its count changes between two questions, they are asked
    again. See "Get Closed Orders", "Get Trades History", "Query Trades Info". Trades have what the
    ledger says of their fees in them.
    """

    def __init__(self) -> None:
        self._fees = LedgerFees()

    async def ended(self, reader: Any, ask: Ask, market: Row, span: Span) -> list[Row]:
        """Read ended orders newest first; what ends meanwhile is repeated, never left out."""
        named = span.client_order_id
        wanted = {} if named is None else {"cl_ord_id": named}
        found: list[Row] = []
        seen = 0
        for _ in range(PAGES_MAX):
            call = _bound(
                reader.privatePostClosedOrders,
                {**wanted, "start": str(span.since_ms // 1_000), "ofs": str(seen)},
            )
            result = _result(await ask(CallClass.LIST_RECENT, call))
            page = mapping(result.get("closed"))
            found += [reader.parse_order({"id": name, **row}) for name, row in page.items()]
            seen += len(page)
            if not page or seen >= _count(result):
                return [row for row in found if row.get("symbol") == market["symbol"]]
        raise VenueUnavailable("there are more ended orders than can be listed")

    async def history(
        self, reader: Any, ask: Ask, market: Row, cursor: str, record: Capabilities
    ) -> History:
        """Read the oldest rows of the window that were not read yet."""
        start, skipped = _position(cursor)
        offset = 0
        for _ in range(COUNTS_MAX):
            call = _bound(
                reader.privatePostTradesHistory, {"start": str(start), "ofs": str(offset)}
            )
            result = _result(await ask(CallClass.FILLS, call))
            oldest = max(0, _count(result) - skipped - record.fills_page_max)
            if oldest == offset:
                page = self._page(result, market, _Window(start, skipped, offset), record)
                return replace(page, rows=await self._fees.told(reader, ask, market, page.rows))
            offset = oldest
        raise VenueUnavailable("trades come in faster than they can be read")

    async def of_order(self, reader: Any, ask: Ask, market: Row, venue_order_id: str) -> list[Row]:
        """Read an order's trade ids, then the trades; both are named over all markets."""
        call = _bound(reader.privatePostQueryOrders, {"txid": venue_order_id, "trades": "true"})
        order = mapping(_result(await ask(CallClass.FIND, call)).get(venue_order_id))
        names = rows(order.get("trades") or [])
        found: list[Row] = []
        for begin in range(0, len(names), IDS_PER_QUERY):
            listed = ",".join(names[begin : begin + IDS_PER_QUERY])
            call = _bound(reader.privatePostQueryTrades, {"txid": listed})
            found += _named(_result(await ask(CallClass.FILLS, call)))
        if not all(_is_of(row, market) for row in found):
            raise BadInput(f"trades of order {venue_order_id} are of another market")
        return await self._fees.told(reader, ask, market, found)

    def _page(self, result: Row, market: Row, window: _Window, record: Capabilities) -> History:
        total = _count(result)
        listed = _named(mapping(result.get("trades")))[::-1]  # oldest first
        behind = total - window.offset  # so many rows are this page's newest or older
        first = behind - len(listed)
        if first > window.read:
            raise VenueUnavailable("a page of trades is shorter than the record says")
        listed = listed[window.read - first :]
        ours = [row for row in listed if _is_of(row, market)]
        if behind < total or not listed:
            return History(ours, f"{window.start}:{behind}", is_last=behind >= total)
        newest = moment_of_seconds(text_of(listed[-1]["info"], "time"))
        margin_s = -(-record.settling_margin // timedelta(seconds=1))
        # The last seconds are read again: a trade may be listed late, among others of its moment.
        start = max(window.start, to_unix_ms(newest) // 1_000 - margin_s)
        return History(ours, f"{start}:0", is_last=True)


def _is_of(row: Row, market: Row) -> bool:
    return text_of(row["info"], "pair") in spellings_of(market)


def _behind(found: list[Row], cursor: str) -> str:
    """Return the trade id after the last one; never one before the cursor."""
    if not found:
        return cursor
    last = text_of(found[-1], "id")
    if not (last.isascii() and last.isdecimal()):
        raise BadInput(f"trades cannot be read on from {last!r}: it is no number")
    return str(max(int(last) + 1, int(cursor or 0)))


def _position(cursor: str) -> tuple[int, int]:
    start, _, skipped = (cursor or "0:0").partition(":")
    if not (start.isdecimal() and skipped.isdecimal()):
        raise BadInput(f"{cursor!r} is no position in a history of trades")
    return int(start), int(skipped)


def _since(found: list[Row], cursor: str, limit: int, margin_ms: int) -> History:
    if not found:
        return History([], cursor, is_last=True)
    last = int(text_of(found[-1], "timestamp"))
    if len(found) < limit:
        return History(found, str(max(int(cursor or 0), last - margin_ms)), is_last=True)
    if last <= int(cursor or 0):
        raise VenueUnavailable(f"more than {limit} trades of one moment cannot be told apart")
    return History(found, str(last), is_last=False)


def _by_id(found: list[Row]) -> list[Row]:
    return sorted(found, key=lambda row: (len(text_of(row, "id")), text_of(row, "id")))


def _by_time(found: list[Row]) -> list[Row]:
    return sorted(found, key=lambda row: int(text_of(row, "timestamp")))


def _named(listed: Row) -> list[Row]:
    """Return raw trades by id as rows in ccxt's shape."""
    return [{"info": {**mapping(row), "id": name}} for name, row in listed.items()]


def _result(answer: Any) -> Row:
    return mapping(mapping(answer).get("result"))


def _count(result: Row) -> int:
    text = text_of(result, "count")
    if not text.isdecimal():
        raise BadInput(f"{text!r} is no count")
    return int(text)


def _bound(call: Callable[..., Awaitable[Any]], *arguments: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: call(*arguments)
