"""What Kraken took for a trade: its ledger tells, its lists of trades only value it.

A list of trades tells a fee in the quote asset, "not necessarily the actual amount that was
deducted" (support.kraken.com, Differences between ledger and trades history). The ledger has one
entry for every asset that a trade moved, each with the fee that was taken in it. See "Get Ledgers
Info"; the key needs "Query ledger entries".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from kernel.clock import to_unix_ms
from kernel.errors import BadInput
from venues.capabilities import CallClass
from venues.ccxt.texts import mapping, moment_of_seconds, text_of
from venues.errors import VenueUnavailable

LEDGER_FEES: Final = "ledger_fees"
"""The field of a trade's row that holds its entries: pairs of asset and fee, also of nothing."""

PAGES_MAX: Final = 10
"""Pages of one span of the ledger; a span with more is asked for in halves."""
REMEMBERED_MAX: Final = 5_000
"""Trades whose fees are not asked for again; a trade's fee never changes."""

Row = Mapping[str, Any]
Ask = Callable[[CallClass, Callable[[], Awaitable[Any]]], Awaitable[Any]]
Entries = list[tuple[str, str]]


class LedgerFees:
    """The fees of one account's trades, asked for once."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Entries] = OrderedDict()

    async def told(self, reader: Any, ask: Ask, market: Row, trades: Sequence[Row]) -> list[Row]:
        """Return *trades*, rows of one market, with their entries of the ledger in them.

        A row whose time cannot be read is returned as it is.

        Raises:
            VenueUnavailable: the ledger cannot be read, or does not show one of the trades yet.
            BadInput: an entry cannot be read.
        """
        found = {_name(row): at for row in trades if (at := _moment(row)) is not None}
        missing = sorted((at, name) for name, at in found.items() if name not in self._known)
        fees = {name: self._known[name] for name in found if name in self._known}
        parts = [missing] if missing else []
        while parts:
            part = parts.pop()
            entries = await _entries(reader, ask, part[0][0], part[-1][0])
            if entries is not None:
                fees |= _by_trade(reader, market, [name for _, name in part], entries)
                continue
            if len(part) == 1:
                raise VenueUnavailable("the ledger has more entries of one moment than can be read")
            half = len(part) // 2
            parts += [part[:half], part[half:]]
        self._remember(fees)
        return [
            {**row, "info": {**row["info"], LEDGER_FEES: fees[_name(row)]}}
            if _name(row) in fees
            else row
            for row in trades
        ]

    def _remember(self, fees: Mapping[str, Entries]) -> None:
        for name, entries in fees.items():
            self._known[name] = entries
            self._known.move_to_end(name)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


async def _entries(reader: Any, ask: Ask, first: datetime, last: datetime) -> list[Row] | None:
    """Return every entry of trades from *first* to *last*; None: there are too many.

    What is entered meanwhile is newer, and moves older entries to later pages: none is left out.
    """
    # The start itself is left out by the venue, the end is not.
    wanted = {
        "type": "trade",
        "start": str(to_unix_ms(first) // 1_000 - 1),
        "end": str(to_unix_ms(last) // 1_000 + 1),
    }
    found: dict[str, Row] = {}
    seen = 0
    for _ in range(PAGES_MAX):
        call = partial(reader.privatePostLedgers, {**wanted, "ofs": str(seen)})
        result = mapping(mapping(await ask(CallClass.FILLS, call)).get("result"))
        page = mapping(result.get("ledger"))
        found |= {name: mapping(row) for name, row in page.items()}
        seen += len(page)
        total = int(text_of(result, "count"))
        if not page or seen >= total:
            return list(found.values())
        if total > PAGES_MAX * len(page):
            return None
    return None


def _by_trade(
    reader: Any, market: Row, names: Sequence[str], entries: Sequence[Row]
) -> dict[str, Entries]:
    """Return the entries of each trade: at least one of each asset that was traded."""
    found: dict[str, Entries] = {name: [] for name in names}
    for row in entries:
        name = text_of(row, "refid")
        if name in found:
            code = str(reader.safe_currency_code(text_of(row, "asset")))
            found[name].append((code, text_of(row, "fee")))
    for name, legs in found.items():
        if not {market["base"], market["quote"]} <= {code for code, _ in legs}:
            raise VenueUnavailable(f"the ledger does not show trade {name} yet")
    return found


def _name(row: Row) -> str:
    return text_of(row["info"], "id")


def _moment(row: Row) -> datetime | None:
    try:
        return moment_of_seconds(text_of(row["info"], "time"))
    except BadInput:
        return None
