"""MT940 (SWIFT): a customer statement, as values; read by the library mt-940.

Two things are held that the library leaves open: a reversed credit (``RC``) is a debit, and every line
``:61:`` of the file has to have become an entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

import mt940

from banks.entry_keys import with_keys
from banks.errors import FileUnreadable
from banks.reading_amounts import units
from banks.statement_model import (
    TEXT_LENGTH_MAX,
    Entry,
    EntryKind,
    EntryLine,
    EntryStatus,
    FileFormat,
    Statement,
    StatementKind,
    sequence_of,
)
from kernel.money import Asset

BYTES_MAX: Final = 8 * 1024 * 1024
OPTIONS: Final = mt940.Options.all()
"""With ``reversal_sign``: the library's default gives a reversed credit the sign of a credit."""

_LINE: Final = re.compile(r"^:61:", re.MULTILINE)
_PAGE: Final = re.compile(r"^:6[02]M:", re.MULTILINE)
_OPENING: Final = re.compile(r"^:60F:", re.MULTILINE)
_FIELD: Final = re.compile(r"/(EREF|REMI|NAME|IBAN|RTRN)/")
_NO_REFERENCE: Final = frozenset({"", "NONREF", "NOTPROVIDED"})
#: Transaction types of SWIFT's field 61, subfield 6.
_CHARGES: Final = frozenset({"CHG", "COM"})
_INTERESTS: Final = frozenset({"INT"})
_RETURNS: Final = frozenset({"RTI"})


def read_mt940(raw: bytes, assets: Mapping[str, Asset]) -> tuple[FileFormat, tuple[Statement, ...]]:
    """Return the format of a file and its statements.

    Raises:
        FileUnreadable: not MT940, a page of a longer statement, or lines that are not understood.
    """
    text = _text(raw)
    if _PAGE.search(text):
        raise FileUnreadable(
            "the file has intermediate balances (60M, 62M): pages of a longer statement",
            remedy="Ask the bank for statements in one piece",
        )
    try:
        found = mt940.parse_statements(text, options=OPTIONS)
    except (
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise FileUnreadable(f"the file is not MT940: {error}") from error
    lines = sum(len(item.transactions) for item in found)
    if lines != len(_LINE.findall(text)) or len(found) != len(_OPENING.findall(text)):
        raise FileUnreadable(
            f"{lines} of {len(_LINE.findall(text))} lines are understood",
            remedy="Ask the bank for camt.053, or for MT940 without its own dialect",
        )
    if not found:
        raise FileUnreadable("the file has no statement in it")
    return FileFormat.MT940, tuple(_statement(item, assets) for item in found)


def _text(raw: bytes) -> str:
    if len(raw) > BYTES_MAX:
        raise FileUnreadable(f"the file has {len(raw)} bytes, more than {BYTES_MAX}")
    if b"\x00" in raw:
        raise FileUnreadable("the file has zero bytes in it: it is not MT940")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    return text.replace("\r\n", "\n")


def _statement(item: Any, assets: Mapping[str, Asset]) -> Statement:
    data: dict[str, Any] = item.data
    opening, closing = data.get("final_opening_balance"), data.get("final_closing_balance")
    account = "".join(str(data.get("account_identification") or "").split()).upper()
    if opening is None or closing is None or not account:
        raise FileUnreadable("a statement has no account (25), or not both balances (60F, 62F)")
    asset = str(closing.amount.currency)
    number = str(data.get("statement_number") or "")
    name = str(data.get("transaction_reference") or "")
    to_date = _date(closing.date)
    entries = [_entry(line.data, asset, assets) for line in item.transactions]
    label = f"{name}/{number}/{to_date.isoformat()}"
    return Statement(
        account=account.rpartition("/")[2],
        id=label,
        kind=StatementKind.STATEMENT,
        asset=asset,
        from_date=min([*(entry.booking_date for entry in entries), to_date]),
        to_date=to_date,
        entries=with_keys(entries, statement=f"{StatementKind.STATEMENT}/{label}"),
        sequence=sequence_of(number),
        opening=_units(opening.amount, asset, assets),
        closing=_units(closing.amount, asset, assets),
    )


def _entry(data: Mapping[str, Any], asset: str, assets: Mapping[str, Asset]) -> Entry:
    amount = _units(data["amount"], asset, assets)
    value = _date(data["date"])
    booking = data.get("guessed_entry_date") or data.get("entry_date")
    code = str(data.get("id") or "")[1:]
    bank_ref = str(data.get("bank_reference") or "")
    kind = EntryKind.PAYMENT
    if code in _CHARGES:
        kind = EntryKind.CHARGE
    elif code in _INTERESTS:
        kind = EntryKind.INTEREST
    return Entry(
        key="",
        amount=amount,
        asset=asset,
        booking_date=value if booking is None else _date(booking),
        value_date=value,
        status=EntryStatus.BOOKED,
        lines=(_line(data, amount, code),),
        kind=kind,
        reversal=str(data.get("status") or "").upper() in {"RC", "RD"},
        ref=str(data.get("customer_reference") or ""),
        bank_ref="" if bank_ref.upper() in _NO_REFERENCE else bank_ref,
    )


def _line(data: Mapping[str, Any], amount: int, code: str) -> EntryLine:
    """Read field 86: GVC subfields as the library has them, or SWIFT's own code words."""
    details = str(data.get("transaction_details") or "")
    words = _code_words(details)
    reference = str(data.get("customer_reference") or "")
    end_to_end = words.get("EREF") or data.get("end_to_end_reference") or reference
    remittance = words.get("REMI") or data.get("purpose") or ("" if words else details)
    returned = words.get("RTRN") or ("RTRN" if code in _RETURNS else "")
    return EntryLine(
        amount=amount,
        end_to_end="" if str(end_to_end).upper() in _NO_REFERENCE else str(end_to_end),
        name=str(words.get("NAME") or data.get("applicant_name") or ""),
        iban=str(words.get("IBAN") or data.get("applicant_iban") or "").upper(),
        remittance=" ".join(str(remittance).split())[:TEXT_LENGTH_MAX],
        return_reason=str(returned),
    )


def _code_words(text: str) -> dict[str, str]:
    """Return ``/EREF/x/NAME/y`` as a mapping; line breaks inside a word are the file's."""
    parts = _FIELD.split(text.replace("\n", ""))
    return {name: value.strip("/ ") for name, value in zip(parts[1::2], parts[2::2], strict=False)}


def _units(amount: Any, asset: str, assets: Mapping[str, Asset]) -> int:
    value: Decimal = amount.amount
    if str(amount.currency) != asset:
        raise FileUnreadable(f"amounts are in {amount.currency} and in {asset}")
    return units(format(value, "f"), asset, assets)


def _date(value: Any) -> date:
    return date(value.year, value.month, value.day)
