"""Payment files: what they say, that they are valid, and that they are the same each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banks.amounts import decimal_text
from banks.pain001 import NAMESPACE, Payment, PaymentOrder, clean_text, write_file
from banks.payee import Payee
from banks.safe_xml import parse_xml
from kernel.errors import BadInput
from kernel.money import Asset

EUR = Asset("EUR", 2)
BIRCH = Payee.of("GB82 WEST 1234 5698 7654 32", "WESTGB22", "Birch Trading Ltd")
FAR = Payee.of("TR33 0006 1005 1978 6457 8413 26", "TGBATRIS", "Cedar AS")
FIRST = Payment(end_to_end="a" * 32, amount=123_456, payee=BIRCH, remittance="deal 7 & more")
ORDER = PaymentOrder(
    message_id="CW0001",
    created_at=datetime(2026, 1, 5, 9, 0, 1, 999, tzinfo=UTC),
    execution_date=date(2026, 1, 5),
    debtor="Causeway Desk Ltd",
    iban="DE89370400440532013000",
    bic="COBADEFFXXX",
    asset=EUR,
    payments=(FIRST, replace(FIRST, end_to_end="b" * 32, amount=1, payee=FAR)),
)


def texts(order: PaymentOrder, name: str) -> list[str]:
    root = parse_xml(write_file(order))
    return [found.text or "" for found in root.iter(f"{{{NAMESPACE}}}{name}")]


def test_a_file_says_each_payment_and_their_sum() -> None:
    assert texts(ORDER, "InstdAmt") == ["1234.56", "0.01"]
    assert texts(ORDER, "CtrlSum") == ["1234.57", "1234.57"]
    assert texts(ORDER, "NbOfTxs") == ["2", "2"]
    assert texts(ORDER, "EndToEndId") == ["a" * 32, "b" * 32]
    assert texts(ORDER, "IBAN") == [ORDER.iban, BIRCH.iban, FAR.iban]
    assert texts(ORDER, "BtchBookg") == ["false"]
    assert texts(ORDER, "Ustrd") == ["deal 7 . more"] * 2


def test_sepa_is_asked_for_only_where_it_reaches() -> None:
    assert texts(ORDER, "ChrgBr") == ["SLEV", "SHAR"]
    assert texts(replace(ORDER, asset=Asset("USD", 2)), "ChrgBr") == ["SHAR", "SHAR"]


def test_the_same_values_give_the_same_bytes_wherever_the_clock_stands() -> None:
    elsewhere = ORDER.created_at.astimezone(timezone(timedelta(hours=9)))
    assert write_file(replace(ORDER, created_at=elsewhere)) == write_file(ORDER)
    assert write_file(ORDER).startswith(b"<?xml version='1.0' encoding='UTF-8'?>")


@pytest.mark.parametrize(
    "changes",
    [
        {"payments": ()},
        {"payments": (FIRST, FIRST)},
        {"payments": (replace(FIRST, end_to_end=""),)},
        {"payments": (replace(FIRST, amount=0),)},
        {"message_id": "x" * 36},
        {"message_id": "a/b"},
        {"asset": Asset("EURO", 2)},
    ],
)
def test_a_file_that_no_bank_takes_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        write_file(replace(ORDER, **changes))


@pytest.mark.parametrize(
    ("amount", "asset", "text"),
    [
        (1, EUR, "0.01"),
        (100, EUR, "1.00"),
        (5, Asset("JPY", 0), "5"),
        (5_000_000, Asset("USD", 6), "5.00"),
        (1234, Asset("BHD", 3), "1.234"),
        (500, Asset("JPY", 2), "5"),
    ],
)
def test_amounts_are_written_in_coins_of_the_currency(amount: int, asset: Asset, text: str) -> None:
    assert decimal_text(amount, asset) == text


@pytest.mark.parametrize(
    ("amount", "asset"),
    [(1, Asset("USD", 6)), (1, Asset("JPY", 2)), (0, EUR), (-1, EUR), (10**18, EUR)],
)
def test_a_piece_of_a_coin_is_refused(amount: int, asset: Asset) -> None:
    with pytest.raises(BadInput, match="no amount that a bank can pay"):
        decimal_text(amount, asset)


@given(st.integers(1, 10**17), st.integers(0, 6))
def test_what_is_written_is_what_was_meant_to_the_cent(coins: int, extra: int) -> None:
    asset = Asset("EUR", 2 + extra)
    whole, _, cents = decimal_text(coins * 10**extra, asset).partition(".")
    assert int(whole) * 100 + int(cents) == coins


@given(st.text(max_size=200))
def test_any_remittance_becomes_text_that_a_bank_takes(text: str) -> None:
    cleaned = clean_text(text, 140)
    assert len(cleaned) <= 140
    assert texts(replace(ORDER, payments=(replace(FIRST, remittance=text),)), "Ustrd") == (
        [cleaned] if cleaned else []
    )


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("gb82 west12345698765432|westgb22| Birch   Trading Ltd", BIRCH.text),
        ("GB82WEST12345698765432||Birch", "GB82WEST12345698765432||Birch"),
    ],
)
def test_a_payee_has_one_spelling(typed: str, canonical: str) -> None:
    assert Payee.parse(typed).text == canonical
    assert Payee.parse(canonical).text == canonical


@pytest.mark.parametrize(
    "typed",
    [
        "GB82WEST12345698765433|WESTGB22|Birch",
        "GB82WEST12345698765432|WEST|Birch",
        "GB82WEST12345698765432|WESTGB22|",
        "GB82WEST12345698765432|WESTGB22|Bj\u00f6rk",
        "GB82WEST12345698765432|WESTGB22|" + "x" * 71,
        "GB82WEST12345698765432",
    ],
)
def test_a_payee_that_cannot_be_is_refused(typed: str) -> None:
    with pytest.raises(BadInput):
        Payee.parse(typed)
