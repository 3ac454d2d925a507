"""The files of a pack as CSV, one line feed a line; amounts are plain decimals with all places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from kernel.clock import iso
from kernel.money import Asset
from ledger.export.columns import csv_line
from ledger.export.model import exact
from ledger.model import TrialBalanceRow
from marketdata.price_model import PriceSnapshot
from reporting.month_end.model import OpenBreak
from reporting.positions import Position
from reporting.valuation.model import Valuation


def csv_file(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a table as the bytes of a CSV file."""
    return "".join([csv_line(columns), *(csv_line(row) for row in rows)]).encode()


def trial_balance_csv(rows: Iterable[TrialBalanceRow], assets: Mapping[str, Asset]) -> bytes:
    """Return every account with what was posted to it, by asset and path."""
    columns = ("path", "asset", "owner", "side", "debits", "credits", "balance")
    return csv_file(
        columns,
        (
            (
                *(row.path, row.asset, row.owner, str(row.side)),
                *(
                    exact(units, assets[row.asset].scale)
                    for units in (row.debits, row.credits, row.balance)
                ),
            )
            for row in rows
        ),
    )


def positions_csv(positions: Iterable[Position], assets: Mapping[str, Asset]) -> bytes:
    """Return every column of every asset's position, and what they come to."""
    names = [item.name for item in fields(Position) if item.name != "asset"]
    sums = ("own", "unsettled", "settled")
    return csv_file(
        ("asset", *names, *sums),
        (
            (
                item.asset,
                *(exact(getattr(item, name), assets[item.asset].scale) for name in (*names, *sums)),
            )
            for item in positions
        ),
    )


def valuation_csv(valuation: Valuation, assets: Mapping[str, Asset]) -> bytes:
    """Return the lines of a result; what is held at its end follows as lines ``holding``."""
    scale = valuation.currency.scale
    rows: list[tuple[str, ...]] = [
        (
            *(str(line.kind), line.account, line.asset),
            exact(line.units, assets[line.asset].scale),
            *("", exact(line.value, scale)),
        )
        for line in valuation.lines
    ]
    rows += [
        (
            *("holding", "", item.asset, exact(item.units, assets[item.asset].scale)),
            *(exact(item.cost, scale), exact(item.value, scale)),
        )
        for item in valuation.holdings
    ]
    return csv_file(("kind", "account", "asset", "units", "cost", "value"), rows)


def prices_csv(snapshot: PriceSnapshot) -> bytes:
    """Return the locked prices, exactly: units of the quote for units of the base."""
    columns = ("base", "quote", "price", "numerator", "denominator", "price_id", "observed_at")
    return csv_file(
        columns,
        (
            (
                *(line.price.base.code, line.price.quote.code, line.price.format()),
                *(line.price.numerator, line.price.denominator),
                *(str(line.price_id), iso(line.observed_at)),
            )
            for line in snapshot.lines
        ),
    )


def breaks_csv(breaks: Iterable[OpenBreak]) -> bytes:
    """Return the breaks that are open; a file with its heading alone says that there is none."""
    return csv_file(
        ("id", "place", "what", "units", "since"),
        (
            (
                *(str(item.id), item.place, item.what),
                *("" if item.amount is None else item.amount, item.since.isoformat()),
            )
            for item in breaks
        ),
    )
