"""What a confirmation says: the terms of a deal, in the words of a back office. Pure.

It carries what the sample confirmation of a foreign exchange transaction in the 1998 FX and Currency
Option Definitions (ISDA, EMTA, FXC) carries: trade date, parties, amount and currency payable by each,
settlement date, account details; and what SWIFT MT300 adds: 22A type of operation, 20 and 21
references, 36 rate. Both sides are named, never "you" and "we": people on either side read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple
from uuid import UUID

from kernel.clock import iso
from kernel.money import Asset, Price, Rounding
from marketdata.model import RecordedPrice
from registry.model import LegalEntity
from trading.confirmations.document import Document, Row, Section, plain
from trading.confirmations.model import ConfirmationKind
from trading.model import Deal, DealOrigin, DealSide
from trading.terms.model import Rail

WEEKDAYS: Final = (*("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),)
TITLES: Final = {
    ConfirmationKind.NEW: "TRADE CONFIRMATION",
    ConfirmationKind.AMENDMENT: "TRADE CONFIRMATION, AMENDED",
    ConfirmationKind.CANCELLATION: "CANCELLATION OF A TRADE",
}
OPERATIONS: Final = {
    ConfirmationKind.NEW: "NEW",
    ConfirmationKind.AMENDMENT: "AMENDMENT, in place of version {before}",
    ConfirmationKind.CANCELLATION: "CANCELLATION of version {before}",
}
ORIGINS: Final = {
    DealOrigin.QUOTE: "quote accepted",
    DealOrigin.VOICE: "by voice or in writing",
    DealOrigin.FILE: "from a file of deals",
}
PLACES_MAX: Final = 36
"""Decimals of a price that are written out; `kernel.money` knows no more."""

AFFIRM_LINE: Final = (
    '{"domain":"causeway/1","fields":{"text_sha256":"HASH"},"verb":"trading.affirm"}'
)

CANCELLED: Final = (
    "This trade is cancelled in full, and what was booked for it is reversed. Under it, neither party"
    " owes the other anything. Its terms are repeated here as they stood."
)
TO_AFFIRM: Final = (
    "Please compare this {what} with your own record now. If it agrees, affirm it: by answering with"
    " the SHA-256 of this text, or by signing the following line with a confirmation key that is"
    " enrolled with Party A (Ed25519, RFC 8032), where HASH is that SHA-256 in lower-case hexadecimal:"
)
TO_DISPUTE: Final = (
    "If it does not agree, dispute it at once and say in which term. A newer version of the same trade"
    " takes the place of this one."
)


class Paid(NamedTuple):
    """Where one asset of a deal goes: by which rail, to which version of which destination."""

    rail: Rail
    version: int | None
    destination: str | None


class Agreed(NamedTuple):
    """The netting agreement that covers the deal: since when, its version, its document's SHA-256."""

    effective_from: date
    version: int
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFacts:
    """All that a confirmation says.

    Attributes:
        before: the deal that `deal` replaced.
        price: the recorded price that the deal was made on.
        paid: of each asset of the deal, how it moves; of deals of before that was resolved, nothing.
    """

    confirmation_id: UUID
    trade_id: UUID
    version: int
    kind: ConfirmationKind
    deal: Deal
    before: Deal | None
    entity: LegalEntity
    price: RecordedPrice
    agreed: Agreed | None
    paid: dict[str, Paid]
    issued_by: str
    issued_at: datetime


def confirm(facts: TradeFacts) -> Document:
    """Return the confirmation of a deal."""
    sections = [_reference(facts), _parties(facts), _terms(facts)]
    if facts.kind is ConfirmationKind.AMENDMENT:
        sections.append(_changes(facts))
    sections += [_settlement(facts), _evidence(facts), _affirmation(facts)]
    return Document(
        TITLES[facts.kind],
        f"{_ours(facts)} and {facts.deal.request.party}",
        tuple(sections),
    )


def price_text(price: Price) -> str:
    """Return a price of one whole unit, exactly: as a decimal if it is one, else as a ratio too."""
    base, quote = price.base, price.quote
    numerator, denominator = _per_whole(price)
    places = _places(denominator)
    if places is not None:
        text = Asset(quote.code, places).format(numerator * 10**places // denominator)
        return f"{text} for 1 {base.code}"
    ratio = f"{price.numerator}/{price.denominator}"
    return f"{price.format(12)}, exactly {ratio} smallest units of {quote.code} for each of {base.code}"


def day_text(day: date) -> str:
    """Return ``2026-01-06 (Tuesday)``."""
    return f"{day.isoformat()} ({WEEKDAYS[day.weekday()]})"


def _reference(facts: TradeFacts) -> Section:
    deal = facts.deal
    rows = [
        Row("Confirmation", str(facts.confirmation_id)),
        Row("Trade", str(facts.trade_id)),
        Row("Version", str(facts.version)),
        Row("Type of operation", OPERATIONS[facts.kind].format(before=facts.version - 1)),
        Row("Deal", str(deal.id)),
        Row("Reference of the deal", deal.request.client_ref),
    ]
    if facts.before is not None:
        rows.append(Row("In place of deal", str(facts.before.id)))
    rows.append(Row("Issued", f"{iso(facts.issued_at)} by {facts.issued_by}"))
    sentences = (CANCELLED,) if facts.kind is ConfirmationKind.CANCELLATION else ()
    return Section("Confirmation", tuple(rows), sentences)


def _parties(facts: TradeFacts) -> Section:
    return Section(
        "Parties",
        (
            Row("Party A", f"{_ours(facts)} ({facts.entity.code}), desk {facts.deal.request.desk}"),
            Row("Party B", facts.deal.request.party),
            Row("Capacity", "each as principal for its own account"),
        ),
    )


def _terms(facts: TradeFacts) -> Section:
    deal, asked = facts.deal, facts.deal.request
    buyer, seller = _ours(facts), asked.party
    if asked.side is DealSide.DESK_SELLS:
        buyer, seller = seller, buyer
    rows = [
        Row("Transaction", f"spot exchange of {asked.base.code} for {asked.quote.code}, delivered"),
        Row("Trade date", day_text(deal.agreed_at.date())),
        Row("Agreed", f"{iso(deal.agreed_at)}, {_origin(deal)}"),
        Row("Buyer", f"{buyer} (buys {asked.base.code})"),
        Row("Seller", f"{seller} (sells {asked.base.code})"),
        Row("Amount", asked.base.format(asked.base_units)),
        Row("Price", price_text(asked.price)),
        Row("Countervalue", asked.quote.format(deal.quote_units)),
        Row("Fee", _fee(deal)),
    ]
    if _is_rounded(deal):
        rows.insert(
            -1, Row("Rounding", f"to the smallest unit of {asked.quote.code}, for {asked.party}")
        )
    return Section("Terms of the trade", tuple(rows))


def _settlement(facts: TradeFacts) -> Section:
    deal, asked = facts.deal, facts.deal.request
    ours, theirs = _payables(deal)
    rows = [
        Row("Value date", day_text(deal.value_date)),
        Row("Business days", deal.calendars or "as agreed"),
        Row("Payable by Party A", "; ".join(ours)),
        Row("Payable by Party B", "; ".join(theirs)),
        Row("Method", _method(facts)),
    ]
    given = asked.base if asked.side is DealSide.DESK_SELLS else asked.quote
    rows += [_delivery(facts, given), *_receipts(facts, given)]
    return Section("Settlement", tuple(rows))


def _delivery(facts: TradeFacts, asset: Asset) -> Row:
    """Return where what Party A gives goes. Codes of assets may be long: they are no labels."""
    return Row("Delivery to Party B", f"{asset.code}: {_destination(facts.paid.get(asset.code))}")


def _destination(paid: Paid | None) -> str:
    if paid is None:
        return "as the settlement instruction of the value date names"
    if paid.rail is Rail.BOOK:
        return "by book, to its account with Party A"
    if paid.destination is None:
        return f"by {paid.rail}; no standing instruction: Party B has still to give one"
    return f"by {paid.rail} to {paid.destination} (standing instruction, version {paid.version})"


def _receipts(facts: TradeFacts, given: Asset) -> list[Row]:
    asked = facts.deal.request
    assets = {asked.base.code, asked.quote.code} - {given.code}
    if asked.fee_units:
        assets.add(asked.quote.code)
    return [
        Row("Delivery to Party A", f"{code}: {_receipt(facts.paid.get(code))}")
        for code in sorted(assets)
    ]


def _receipt(paid: Paid | None) -> str:
    if paid is None:
        return "as the settlement instruction of Party A names"
    if paid.rail is Rail.BOOK:
        return "by book, from the account of Party B with Party A"
    return f"by {paid.rail} to the address that the settlement instruction of Party A names"


def _method(facts: TradeFacts) -> str:
    if facts.agreed is None:
        return "gross: no netting agreement covers the deal on its value date"
    return (
        "net, with what else is due between the parties on the value date, under netting agreement"
        f" version {facts.agreed.version} of {facts.agreed.effective_from.isoformat()}"
        f" (SHA-256 {facts.agreed.document})"
    )


def _changes(facts: TradeFacts) -> Section:
    assert facts.before is not None, "an amendment replaces a deal"
    old, new = _economics(facts.before), _economics(facts.deal)
    rows = [
        Row(label, f"{old[label]}, now {new[label]}") for label in new if old[label] != new[label]
    ]
    return Section(
        "Changed by this version",
        tuple(rows),
        ("All other terms are as before.",) if rows else ("No economic term has changed.",),
    )


def _economics(deal: Deal) -> dict[str, str]:
    asked = deal.request
    side = "sells" if asked.side is DealSide.DESK_SELLS else "buys"
    return {
        "Party B": asked.party,
        "Direction": f"Party A {side} {asked.base.code}",
        "Amount": asked.base.format(asked.base_units),
        "Price": price_text(asked.price),
        "Countervalue": asked.quote.format(deal.quote_units),
        "Fee": _fee(deal),
        "Value date": day_text(deal.value_date),
        "Reference of the deal": asked.client_ref,
    }


def _evidence(facts: TradeFacts) -> Section:
    deal, record = facts.deal, facts.price.record
    rows = [
        Row("Price on record", str(facts.price.id)),
        Row("Of kind", f"{record.kind}, {record.quality}, {price_text(record.price)}"),
        Row("Observed", iso(record.observed_at)),
    ]
    if deal.request.quote_id is not None:
        rows.append(Row("Quote", str(deal.request.quote_id)))
    rows += [
        Row(
            "Terms of dealing",
            f"version {deal.terms_version}" if deal.terms_version else "standard",
        ),
        Row("Booked", f"{iso(deal.created_at)} by {deal.request.booked_by}"),
    ]
    return Section("Evidence", tuple(rows))


def _affirmation(facts: TradeFacts) -> Section:
    what = "cancellation" if facts.kind is ConfirmationKind.CANCELLATION else "trade"
    return Section("Affirmation", sentences=(TO_AFFIRM.format(what=what), AFFIRM_LINE, TO_DISPUTE))


def _payables(deal: Deal) -> tuple[list[str], list[str]]:
    """Return what either party pays: the deal's two amounts, and the fee, which Party B pays."""
    asked = deal.request
    base = asked.base.format(asked.base_units)
    if asked.side is DealSide.DESK_BUYS:
        theirs = [base, *([f"{_fee(deal)} (fee)"] if asked.fee_units else [])]
        return [asked.quote.format(deal.quote_units)], theirs
    due = asked.quote.format(deal.quote_units + asked.fee_units)
    return [base], [f"{due} (countervalue and fee)" if asked.fee_units else due]


def _fee(deal: Deal) -> str:
    asked = deal.request
    return asked.quote.format(asked.fee_units) if asked.fee_units else "none"


def _origin(deal: Deal) -> str:
    return ORIGINS[deal.request.origin]


def _ours(facts: TradeFacts) -> str:
    return plain(facts.entity.name) or facts.entity.code


def _is_rounded(deal: Deal) -> bool:
    asked = deal.request
    return asked.price.to_quote(asked.base_units, Rounding.DOWN) != asked.price.to_quote(
        asked.base_units, Rounding.UP
    )


def _per_whole(price: Price) -> tuple[int, int]:
    """Return the quote's whole units for one whole unit of the base, as a reduced ratio."""
    whole = Price.of(
        price.numerator * 10**price.base.scale,
        price.denominator * 10**price.quote.scale,
        price.base,
        price.quote,
    )
    return whole.numerator, whole.denominator


def _places(denominator: int) -> int | None:
    """Return how many decimals a reduced fraction needs; None: it never ends, or is absurdly long."""
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    return places if rest == 1 and places <= PLACES_MAX else None
