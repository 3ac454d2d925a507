"""Kraken's history of trades, newest first and growing while it is read, comes out whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
from venues.capabilities import CallClass
from venues.ccxt import kraken_ledger
from venues.ccxt.kraken import KrakenReading
from venues.ccxt.kraken_ledger import LEDGER_FEES
from venues.ccxt.lists import KrakenLists, Span, UnifiedLists
from venues.errors import VenueUnavailable
from venues.records import KRAKEN

MARKET = {
    "id": "XETHZUSD",
    "symbol": "ETH/USD",
    "base": "ETH",
    "quote": "USD",
    "info": {"altname": "ETHUSD"},
}
START = 1_700_000_000
TINY = replace(KRAKEN, fills_page_max=3)


class GrowingHistory:
    """A venue that tells `page` trades at once, and trades on between some questions."""

    def __init__(self, trades: int, *, page: int = 50, grows_at: tuple[int, ...] = ()) -> None:
        self.trades = trades
        self._page = page
        self._grows_at = grows_at
        self.asked = 0
        self.pages_of_ledger = 0
        self.late: int | None = None
        self.unlisted: frozenset[str] = frozenset()

    async def privatePostTradesHistory(self, sent: dict[str, str]) -> Any:  # noqa: N802  ccxt's name
        self.asked += 1
        if self.asked in self._grows_at:
            self.trades += 7
        since, offset = int(sent["start"]), int(sent["ofs"])
        newest_first = [n for n in reversed(range(self.trades)) if START + n // 3 > since]
        rows = [(f"T{n}", n) for n in newest_first]
        if self.late is not None:
            rows.insert(newest_first.index(self.late), (f"T{self.late}-late", self.late + 1))
        listed = {
            name: {"pair": "ETHUSD" if n % 2 else "XBTUSD", "time": f"{START + n // 3}.5"}
            for name, n in rows[offset : offset + self._page]
        }
        return {"error": [], "result": {"count": len(rows), "trades": listed}}

    async def privatePostLedgers(self, sent: dict[str, str]) -> Any:  # noqa: N802  ccxt's name
        """Two entries of each trade, newest first; each trade's fee is its number, in ether."""
        self.pages_of_ledger += 1
        assert sent["type"] == "trade"
        since, until, offset = (int(sent[key]) for key in ("start", "end", "ofs"))
        numbers = [n for n in reversed(range(self.trades)) if since < START + n // 3 + 0.5 <= until]
        names = [(f"T{n}", n) for n in numbers]
        if self.late in numbers:
            names.append((f"T{self.late}-late", self.late))
        entries = {
            f"L{name}-{asset}": {"refid": name, "asset": asset, "fee": fee}
            for name, n in names
            if name not in self.unlisted
            for asset, fee in (("XETH", f"0.{n:05}"), ("ZUSD", "0.0000"))
        }
        page = dict(list(entries.items())[offset : offset + self._page])
        return {"error": [], "result": {"count": len(entries), "ledger": page}}

    def safe_currency_code(self, name: str) -> str:
        return {"XETH": "ETH", "ZUSD": "USD"}[name]


async def ask(call: CallClass, request: Callable[[], Awaitable[Any]]) -> Any:
    del call
    return await request()


async def read_all(venue: GrowingHistory, cursor: str = "") -> tuple[list[str], str]:
    found: list[str] = []
    lists = KrakenLists()
    for _ in range(50):
        page = await lists.history(venue, ask, MARKET, cursor, KRAKEN)
        found += [row["info"]["id"] for row in page.rows]
        cursor = page.cursor
        if page.is_last:
            return found, cursor
    raise AssertionError("the history has no end")


@pytest.mark.parametrize("grows_at", [(), (2,), (1, 2, 3, 4), (2, 4, 6), (3, 4)])
@pytest.mark.parametrize("trades", [0, 1, 49, 50, 51, 100, 173])
async def test_no_trade_is_left_out_and_the_oldest_come_first(
    trades: int, grows_at: tuple[int, ...]
) -> None:
    venue = GrowingHistory(trades, grows_at=grows_at)

    found, cursor = await read_all(venue)
    later = GrowingHistory(venue.trades + 60)
    more, _ = await read_all(later, cursor)

    ours = [f"T{n}" for n in range(later.trades) if n % 2]
    assert found == sorted(set(found), key=lambda name: int(name[1:]))
    assert set(found) | set(more) == set(ours)


async def test_a_page_shorter_than_the_record_says_is_no_page() -> None:
    with pytest.raises(VenueUnavailable, match="shorter"):
        await read_all(GrowingHistory(120, page=20))


async def test_a_trade_listed_late_among_others_of_its_second_is_read() -> None:
    """Its place is before the newest: a reader that counts rows would take it for one it knows."""
    venue = GrowingHistory(9)  # three trades of each of three seconds
    _, cursor = await read_all(venue)
    found, cursor = await read_all(venue, cursor)  # nothing new, so the window stays where it is
    venue.late = 4

    more, _ = await read_all(venue, cursor)

    assert "T4-late" in more
    assert set(found) <= set(more)


async def test_each_trade_has_its_own_entries_of_the_ledger_and_they_are_asked_for_once() -> None:
    venue, lists = GrowingHistory(50), KrakenLists()

    first = await lists.history(venue, ask, MARKET, "", KRAKEN)
    asked = venue.pages_of_ledger
    again = await lists.history(venue, ask, MARKET, "", KRAKEN)

    fees = {row["info"]["id"]: row["info"][LEDGER_FEES] for row in first.rows}
    assert fees == {f"T{n}": [("ETH", f"0.{n:05}"), ("USD", "0.0000")] for n in range(1, 50, 2)}
    assert again == first
    assert (asked, venue.pages_of_ledger) == (2, 2)


async def test_a_span_with_more_entries_than_are_read_is_read_in_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kraken_ledger, "PAGES_MAX", 1)
    page = await KrakenLists().history(GrowingHistory(50), ask, MARKET, "", KRAKEN)

    assert all(len(row["info"][LEDGER_FEES]) == 2 for row in page.rows)
    with pytest.raises(VenueUnavailable, match="one moment"):
        await KrakenLists().history(GrowingHistory(50, page=3), ask, MARKET, "", TINY)


async def test_a_trade_that_the_ledger_does_not_show_yet_is_not_guessed_at() -> None:
    venue = GrowingHistory(9)
    venue.unlisted = frozenset({"T7"})

    with pytest.raises(VenueUnavailable, match="T7"):
        await read_all(venue)
    venue.unlisted = frozenset()
    found, _ = await read_all(venue)

    assert "T7" in found


async def test_no_more_fees_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kraken_ledger, "REMEMBERED_MAX", 10)
    venue, lists = GrowingHistory(50), KrakenLists()

    pages = [await lists.history(venue, ask, MARKET, "", KRAKEN) for _ in range(2)]

    assert [len(page.rows) for page in pages] == [25, 25]
    assert venue.pages_of_ledger > 2


GRID = Instrument(
    venue="krk",
    symbol="XETHZUSD",
    base=Asset("ETH", 18),
    quote=Asset("USD", 4),
    price_scale=2,
    tick=100,
    lot=10**14,
    lots_min=1,
    lots_max=10**9,
    min_notional=1,
)
TRADE = {
    "id": "T1",
    "ordertxid": "O1",
    "type": "buy",
    "price": "3000",
    "vol": "1",
    "cost": "3000",
    "fee": "7.80000",
    "maker": False,
    "time": "1700000000.5",
}


@pytest.mark.parametrize(
    ("valued", "entries", "taken"),
    [
        ("7.80005", [("ETH", "0"), ("USD", "7.8000")], ("USD", 78_001)),
        ("7.80000", [("ETH", "0.0026"), ("USD", "0.0000")], ("ETH", 26 * 10**14)),
        ("7.80000", [("ETH", "0"), ("USD", "0.0000"), ("KFEE", "780.00")], ("KFEE", 78_000)),
        ("0.00000", [("ETH", "0"), ("USD", "0.0000"), ("KFEE", "780.00")], ("KFEE", 78_000)),
        ("0.00000", [("ETH", "0"), ("USD", "0.0000")], ("USD", 0)),
        ("0.00009", [("ETH", "0"), ("USD", "0.0000")], ("USD", 1)),
        ("0.00000", [("ETH", "0"), ("USD", "0.0001")], ("USD", 1)),
        ("7.80000", [("ETH", "0"), ("USD", "0.0000")], "not in the ledger"),
        ("7.80000", [("ETH", "0.001"), ("USD", "4.8000")], "taken in ETH, USD"),
        ("7.80000", [("ETH", "x"), ("USD", "4.8000")], "not a decimal"),
        ("7.80000", None, "where a list was due"),
    ],
)
def test_the_fee_of_a_trade_is_what_the_ledger_says_was_taken(
    valued: str, entries: list[tuple[str, str]] | None, taken: tuple[str, int] | str
) -> None:
    row = {"info": {**TRADE, "fee": valued, LEDGER_FEES: entries}}
    assets = {asset.code: asset for asset in (GRID.base, GRID.quote, Asset("KFEE", 2))}

    if isinstance(taken, str):
        with pytest.raises(BadInput, match=taken):
            KrakenReading().fill(row, GRID, assets, "desk")
    else:
        fill = KrakenReading().fill(row, GRID, assets, "desk")
        assert (fill.fee_asset, fill.fee_units) == taken


class EndedOrders:
    """A venue without one list of all orders: it lists ended ones, oldest first, some at a time."""

    has: dict[str, bool] = {"fetchOrders": False}  # noqa: RUF012  as ccxt has it

    def __init__(self, times: list[int]) -> None:
        self._times = times

    async def fetch_closed_orders(self, symbol: str, since: int, limit: int) -> Any:
        assert symbol == MARKET["symbol"]
        rows: list[dict[str, Any]] = [
            {"id": str(n), "timestamp": at} for n, at in enumerate(self._times)
        ]
        return [row for row in rows if row["timestamp"] >= since][:limit]


@pytest.mark.parametrize("orders", [0, 1, 3, 4, 5, 1_700])
async def test_ended_orders_are_listed_to_the_last(orders: int) -> None:
    page = 4 if orders < 100 else 1_000
    venue = EndedOrders([START + n // 2 for n in range(orders)])

    listed = await UnifiedLists().ended(venue, ask, MARKET, Span(START, page))

    assert {row["id"] for row in listed} == {str(n) for n in range(orders)}


async def test_more_ended_orders_of_one_moment_than_a_page_are_no_list() -> None:
    with pytest.raises(VenueUnavailable, match="more orders"):
        await UnifiedLists().ended(EndedOrders([START] * 4), ask, MARKET, Span(START, 4))
