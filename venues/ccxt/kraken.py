"""Kraken's own answers, where ccxt's unified ones lose something: fees, times, key permissions.

Formats: Kraken, REST API, "Get Trades History", "Query Trades Info", "Get API Key Info".
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from kernel.errors import BadInput
from marketdata.model import Instrument
from venues.ccxt.generic import GenericReading
from venues.ccxt.kraken_ledger import LEDGER_FEES
from venues.ccxt.reading import Assets, FillTexts, fill_from
from venues.ccxt.texts import (
    decimal_of,
    mapping,
    moment_of_seconds,
    plain,
    rows,
    side_of,
    text_of,
    truth_of,
)
from venues.model import KeyPermissions, VenueFill

TRADING: Final = frozenset({"modify-trades", "close-trades"})
"""Making orders and cancelling them are two permissions: nobody trades who cannot take an order back."""
READING: Final = frozenset(
    {"query-funds", "query-open-trades", "query-closed-trades", "query-ledger"}
)
"""An order that has ended is only found by who may see the closed ones; a fee is in the ledger."""
WITHDRAWING: Final = "withdraw"
"""Withdrawing itself, and adding or changing the addresses it goes to."""


class KrakenReading(GenericReading):
    """See `venues.ccxt.reading.Reading`; assets go by ccxt's codes (BTC, not XXBT)."""

    def fill(
        self, answer: Mapping[str, Any], grid: Instrument, assets: Assets, account: str
    ) -> VenueFill:
        """Read a trade from the raw row, whose id ccxt or the caller has put into it.

        The fee is what the ledger says was taken, in one asset. The time is cut to the millisecond,
        as a stream's is, so that both tell the same fill.
        """
        row = mapping(answer.get("info"))
        fee, fee_asset = _fee(row, grid.quote.code)
        texts = FillTexts(
            side=side_of(text_of(row, "type")),
            trade_id=text_of(row, "id"),
            venue_order_id=text_of(row, "ordertxid"),
            price=decimal_of(row, "price"),
            quantity=decimal_of(row, "vol"),
            cost=decimal_of(row, "cost"),
            fee=fee,
            fee_asset=fee_asset,
            is_maker=truth_of(row, "maker"),
            at=moment_of_seconds(text_of(row, "time")),
        )
        return fill_from(texts, grid, assets, account)

    def permissions(self, answer: Any) -> KeyPermissions:
        """Read a key's permissions, a list of words."""
        row = mapping(mapping(answer).get("result"))
        words = rows(row.get("permissions"))
        if not all(isinstance(word, str) for word in words):
            raise BadInput("the permissions of the key cannot be read")
        return KeyPermissions(
            trade=set(words) >= TRADING,
            withdraw=any(WITHDRAWING in word for word in words),
            read=set(words) >= READING,
        )


def _fee(row: Mapping[str, Any], quote: str) -> tuple[str, str]:
    """Return what was taken, and the asset in which it was.

    One in the quote asset is told more exactly by the list of trades than by the ledger.

    Raises:
        BadInput: it was taken in several assets, or the ledger has none where the list values one.
    """
    valued = decimal_of(row, "fee")
    told = [(str(code), plain(str(fee))) for code, fee in rows(row.get(LEDGER_FEES))]
    taken = [(code, fee) for code, fee in told if Decimal(fee)]
    if len(taken) > 1:
        assets = ", ".join(code for code, _ in taken)
        raise BadInput(f"fees were taken in {assets}, and one was due")
    if taken:
        code, fee = taken[0]
        return (valued if code == quote and Decimal(valued) else fee), code
    scale = max((len(fee.partition(".")[2]) for code, fee in told if code == quote), default=0)
    if abs(Decimal(valued)) >= Decimal(1).scaleb(-scale):
        raise BadInput(f"a fee of {valued} {quote} is not in the ledger")
    return valued, quote
