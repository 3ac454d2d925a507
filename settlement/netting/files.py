"""Obligations between anybody and anybody, in a file; and the notices of what is set off.

The platform is the agent of those who owe each other: nothing of it is posted in our books.
Amounts are decimals; each asset is counted in the smallest place that the file writes.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

from kernel.errors import BadInput
from settlement.netting.model import Clearing, Edge

COLUMNS: Final = ("debtor", "creditor", "asset", "amount", "value_date")
ID_COLUMN: Final = "id"
PLACES_MAX: Final = 30
WHOLE_DIGITS_MAX: Final = 48
"""With its places an amount has no more than the 78 digits that are stored."""
ROWS_MAX: Final = 1_000_000
SHOWN_MAX: Final = 80
"""Characters of a cell that an error repeats."""
NOTICE_COLUMNS: Final = (
    *("id", "value_date", "debtor", "creditor", "asset", "amount", "set_off", "remaining"),
)


@dataclass(frozen=True, slots=True)
class Owed:
    """The obligations of one asset that are cleared together.

    Attributes:
        value_date: of all of them; None if dates do not part them.
        places: an amount of 1 is 10 to the power of minus so many.
    """

    asset: str
    value_date: date | None
    places: int
    edges: Sequence[Edge]

    def told(self, amount: int) -> str:
        """Return *amount*, zero or above, as a decimal, to the last digit."""
        digits = str(amount).rjust(self.places + 1, "0")
        whole = len(digits) - self.places
        return digits[:whole] + (f".{digits[whole:]}" if self.places else "")


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    debtor: str
    creditor: str
    asset: str
    amount: Decimal
    value_date: date


def read_owed(text: str, *, together: bool = False) -> list[Owed]:
    """Read a file of obligations; by asset, then by value date.

    Args:
        together: whatever their value date. What is due is otherwise not set off against what is not.

    Raises:
        BadInput: names the line, and what is wrong with it.
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise BadInput(
            f"the file has no column {', '.join(sorted(missing))}",
            remedy=f"Its first line names {', '.join(COLUMNS)} and, if you like, {ID_COLUMN}",
        )
    groups: dict[tuple[str, date | None], list[_Row]] = {}
    seen: dict[str, int] = {}
    try:
        for cells in reader:
            row = _row(cells, reader.line_num)
            if row.id in seen:
                raise BadInput(
                    f"{row.id!r} stands in line {seen[row.id]} already",
                    where=f"line {reader.line_num}",
                )
            seen[row.id] = reader.line_num
            if len(seen) > ROWS_MAX:
                raise BadInput(f"the file has more than {ROWS_MAX:,} obligations")
            groups.setdefault((row.asset, None if together else row.value_date), []).append(row)
    except csv.Error as error:
        raise BadInput(f"this is no CSV: {error}", where=f"line {reader.line_num}") from error
    places = {asset: 0 for asset, _ in groups}
    for (asset, _), rows in groups.items():
        places[asset] = max(places[asset], *(_places(row.amount) for row in rows))
    return [
        _owed(asset, value_date, rows, places[asset])
        # Within an asset either all have a date or none has.
        for (asset, value_date), rows in sorted(groups.items(), key=_by_asset_and_date)
    ]


def _by_asset_and_date(group: tuple[tuple[str, date | None], Sequence[_Row]]) -> tuple[str, date]:
    (asset, value_date), _ = group
    return asset, value_date or date.min


def write_notices(cleared: Sequence[tuple[Owed, Clearing]]) -> tuple[str, str]:
    """Return the notices as CSV, oldest first within what was cleared together, and the SHA-256 of its bytes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NOTICE_COLUMNS)
    for owed, clearing in cleared:
        for edge in sorted(owed.edges, key=lambda e: e.order_key):
            taken = clearing.set_off[edge.id]
            if taken:
                amounts = map(owed.told, (edge.amount, taken, edge.amount - taken))
                dated = edge.order_key[0].isoformat()
                writer.writerow([edge.id, dated, edge.debtor, edge.creditor, owed.asset, *amounts])
    text = out.getvalue()
    return text, hashlib.sha256(text.encode()).hexdigest()


def _row(cells: Mapping[str, str | None], line: int) -> _Row:
    values = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    where = f"line {line}"
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise BadInput(f"there is no {empty[0]}", where=where)
    if values["debtor"] == values["creditor"]:
        raise BadInput(f"{values['debtor']} owes himself", where=where)
    try:
        amount = Decimal(values["amount"])
        value_date = date.fromisoformat(values["value_date"])
    except (InvalidOperation, ValueError) as error:
        raise BadInput(
            f"{values['amount']!r} on {values['value_date']!r} cannot be read",
            where=where,
            remedy="Write amounts as 1234.56 and dates as 2026-01-31",
        ) from error
    if not _is_amount(amount):
        raise BadInput(
            f"{values['amount'][:SHOWN_MAX]} is no amount above zero of at most {PLACES_MAX} places "
            f"and {WHOLE_DIGITS_MAX} digits before them",
            where=where,
        )
    return _Row(
        id=(cells.get(ID_COLUMN) or "").strip() or f"line-{line:07}",
        debtor=values["debtor"],
        creditor=values["creditor"],
        asset=values["asset"],
        amount=amount,
        value_date=value_date,
    )


def _is_amount(amount: Decimal) -> bool:
    return (
        amount.is_finite()
        and amount > 0
        and _places(amount) <= PLACES_MAX
        and amount.adjusted() < WHOLE_DIGITS_MAX
    )


def _owed(asset: str, value_date: date | None, rows: Sequence[_Row], places: int) -> Owed:
    return Owed(
        asset=asset,
        value_date=value_date,
        places=places,
        edges=[
            Edge(
                row.id,
                row.debtor,
                row.creditor,
                _units(row.amount, places),
                (row.value_date, row.id),
            )
            for row in rows
        ],
    )


def _places(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _units(amount: Decimal, places: int) -> int:
    """Return the amount in units of 10 to the power of minus *places*, digit by digit."""
    _, digits, exponent = amount.as_tuple()
    coefficient = int("".join(map(str, digits)))
    shift: int = int(exponent) + places
    return int(coefficient * 10**shift)
