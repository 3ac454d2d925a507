"""Deals in a file: one a line, as a desk that deals elsewhere keeps them. Pure.

CSV of RFC 4180 in UTF-8, a header and then a deal a line (`ledger.imports.reading`).

===================  ====================================================================
column               what stands there
===================  ====================================================================
``ref``              your own reference; one deal for each, however often it is imported
``party``            code of the party
``side``             ``sell`` or ``buy``: what the desk does
``amount``           of the base asset: ``1.5``
``base``             its code
``price``            of one whole base: ``3000.25``
``quote``            code of the asset that it is paid in
``fee``              on top, in the quote asset; empty: by the party's terms
``value_date``       when it settles; empty: by the party's terms
``agreed_at``        when it was agreed, with a zone; empty: now
``desk``             whose position it changes; empty: the desk of the party's terms
``purpose``          ``client``, ``hedge`` or ``transfer``; empty: ``client``
``off_market``       why a price far from the market's is right
``reason``           anything else; it stays in the history
===================  ====================================================================

All columns from ``fee`` on may be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Final

from kernel.errors import BadInput
from kernel.money import Asset, Price
from ledger.imports.model import Fault
from ledger.imports.reading import Columns, Line, Reader, require_none
from trading.drafting import with_fee
from trading.model import DealOrigin, DealPurpose, DealRequest, DealSide
from trading.terms.model import ClientTerms

ROWS_MAX: Final = 1_000
"""Deals in one file, at most: they are booked in one transaction."""
FILE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Room for as many deals with the longest texts; a larger file is not read."""
COLUMNS: Final = Columns(
    ("ref", "party", "side", "amount", "base", "price", "quote"),
    ("fee", "value_date", "agreed_at", "desk", "purpose", "off_market", "reason"),
)
SIDES: Final = {"sell": DealSide.DESK_SELLS, "buy": DealSide.DESK_BUYS}
TEXT_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class DealLine:
    """A deal as a line has it; every None is by the party's terms, or now."""

    line: int
    client_ref: str
    party: str
    side: DealSide
    base_units: int
    price: Price
    fee_units: int | None
    value_date: date | None
    agreed_at: datetime | None
    desk: str | None
    purpose: DealPurpose
    off_market_reason: str
    reason: str

    def request(self, terms: ClientTerms, *, by: str) -> DealRequest:
        """Return what is to be booked.

        Raises:
            BadInput: the line says what no deal can be: a transfer with a fee, an amount worth nothing.
        """
        asked = DealRequest(
            client_ref=self.client_ref,
            desk=self.desk or terms.desk,
            party=self.party,
            side=self.side,
            base=self.price.base,
            quote=self.price.quote,
            base_units=self.base_units,
            price=self.price,
            value_date=self.value_date,
            origin=DealOrigin.FILE,
            purpose=self.purpose,
            agreed_at=self.agreed_at,
            off_market_reason=self.off_market_reason,
            booked_by=by,
            reason=self.reason,
        )
        return with_fee(asked, terms, self.fee_units)


def read_deals(name: str, data: bytes, assets: Mapping[str, Asset]) -> tuple[DealLine, ...]:
    """Read a file of deals.

    Args:
        name: of the file, for its faults.
        data: its bytes.
        assets: the registered assets by code.

    Raises:
        FilesNotValid: names every fault with its line and column.
    """
    faults: list[Fault] = []
    reader = Reader(name, hashlib.sha256(data).hexdigest(), assets, faults)
    if len(data) > FILE_BYTES_MAX:
        reader.fault(0, "", f"is larger than {FILE_BYTES_MAX} bytes", "Split the file")
        require_none(faults)
    found = (row for row in reader.read(data, COLUMNS, _deal) if isinstance(row, DealLine))
    rows = list(islice(found, ROWS_MAX + 1))
    if len(rows) > ROWS_MAX:
        reader.fault(0, "", f"has more than {ROWS_MAX} deals", "Split the file")
    require_none(faults)
    return tuple(rows)


def _deal(line: Line) -> DealLine | None:
    base, quote = line.asset("base"), line.asset("quote")
    party, reference = line.text("party"), line.text("ref")
    side = SIDES[line.word("side", tuple(SIDES))]
    units, price = line.units("amount", base), _price(line, base, quote)
    fee = _fee(line, quote)
    purpose = line.word("purpose", tuple(DealPurpose)) if _is_given(line, "purpose") else "client"
    value_date = line.day("value_date") if _is_given(line, "value_date") else None
    agreed_at = line.time("agreed_at") if _is_given(line, "agreed_at") else None
    desk = line.text("desk", empty=True) or None
    reasons = [_text(line, column) for column in ("off_market", "reason")]
    if line.failed or price is None:
        return None
    return DealLine(
        line=line.number,
        client_ref=reference,
        party=party,
        side=side,
        base_units=units,
        price=price,
        fee_units=fee,
        value_date=value_date,
        agreed_at=agreed_at,
        desk=desk,
        purpose=DealPurpose(purpose),
        off_market_reason=reasons[0],
        reason=reasons[1],
    )


def _is_given(line: Line, column: str) -> bool:
    return bool(line.cells.get(column))


def _price(line: Line, base: Asset | None, quote: Asset | None) -> Price | None:
    if base is None or quote is None:
        return None
    try:
        return Price.parse(line.cells.get("price", ""), base, quote)
    except BadInput as error:
        line.fault("price", error)
        return None


def _fee(line: Line, quote: Asset | None) -> int | None:
    """Return the fee, which may be nothing; None: it is left to the terms."""
    if quote is None or not _is_given(line, "fee"):
        return None
    try:
        units = quote.parse(line.cells["fee"])
    except BadInput as error:
        line.fault("fee", error)
        return None
    if units < 0:
        line.fault("fee", BadInput("a fee is not below zero"))
    return units


def _text(line: Line, column: str) -> str:
    value = line.cells.get(column, "")
    if len(value) > TEXT_LENGTH_MAX:
        line.fault(column, BadInput(f"has more than {TEXT_LENGTH_MAX} characters"))
    return value
