"""What a confirmation says of a deal: who pays what to whom, when, where, and on what evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.money import Asset, Price, Rounding
from registry.testing import ENTITY, ETH, USDT
from tests.trading.confirmations.paper import ADDRESS, deal, facts
from trading.confirmations.affirming import affirmation_bytes
from trading.confirmations.document import Document, parse
from trading.confirmations.model import ConfirmationKind
from trading.confirmations.wording import (
    AFFIRM_LINE,
    Agreed,
    Paid,
    TradeFacts,
    confirm,
    price_text,
)
from trading.model import DealOrigin, DealSide
from trading.terms.model import Rail


def rows(told: TradeFacts) -> dict[str, str]:
    return values(confirm(told))


def values(document: Document) -> dict[str, str]:
    return {row.label: row.value for section in document.sections for row in section.rows}


def deliveries_to_us(told: TradeFacts) -> list[str]:
    sections = confirm(told).sections
    found = [r for s in sections for r in s.rows if r.label == "Delivery to Party A"]
    return [row.value.partition(":")[0] for row in found]


def test_a_sale_says_who_buys_what_each_side_pays_and_where_to() -> None:
    said = rows(facts())

    assert said["Party A"] == "Causeway Desk Ltd (causeway-desk), desk otc"
    assert said["Buyer"] == "acme (buys ETH)"
    assert said["Seller"] == "Causeway Desk Ltd (sells ETH)"
    assert (said["Amount"], said["Price"]) == ("10 ETH", "3,000 USDT for 1 ETH")
    assert (said["Countervalue"], said["Fee"]) == ("30,000 USDT", "300 USDT")
    assert said["Payable by Party A"] == "10 ETH"
    assert said["Payable by Party B"] == "30,300 USDT (countervalue and fee)"
    assert said["Delivery to Party B"] == (
        f"ETH: by evm to {ADDRESS} (standing instruction, version 3)"
    )
    assert said["Delivery to Party A"] == (
        "USDT: by evm to the address that the settlement instruction of Party A names"
    )
    assert said["Trade date"] == "2026-01-05 (Monday)"
    assert said["Value date"] == "2026-01-06 (Tuesday)"
    assert said["Method"].startswith("gross")
    assert "Rounding" not in said


def test_a_purchase_says_that_the_fee_is_paid_beside_what_is_sold() -> None:
    told = facts(deal(side=DealSide.DESK_BUYS))
    said = rows(told)

    assert said["Buyer"] == "Causeway Desk Ltd (buys ETH)"
    assert said["Seller"] == "acme (sells ETH)"
    assert said["Payable by Party A"] == "30,000 USDT"
    assert said["Payable by Party B"] == "10 ETH; 300 USDT (fee)"
    assert said["Delivery to Party B"].startswith("USDT: by evm to")
    assert deliveries_to_us(told) == ["ETH", "USDT"]


@pytest.mark.parametrize("side", DealSide)
def test_without_a_fee_each_side_pays_one_amount(side: DealSide) -> None:
    told = facts(deal(side=side, fee_units=0))
    said = rows(told)

    assert said["Fee"] == "none"
    assert sorted([said["Payable by Party A"], said["Payable by Party B"]]) == [
        "10 ETH",
        "30,000 USDT",
    ]
    assert deliveries_to_us(told) == ["USDT" if side is DealSide.DESK_SELLS else "ETH"]


@given(
    units=st.integers(1, 10**24),
    numerator=st.integers(1, 10**12),
    denominator=st.integers(1, 10**12),
    fee=st.integers(0, 10**12),
    side=st.sampled_from(DealSide),
)
def test_what_is_said_to_be_payable_is_what_is_booked(
    units: int, numerator: int, denominator: int, fee: int, side: DealSide
) -> None:
    price = Price.of(numerator, denominator, ETH, USDT)
    if price.to_quote(units, Rounding.DOWN) == 0:
        units = 10**24
    found = deal(base_units=units, price=price, fee_units=fee, side=side)

    said = rows(facts(found))

    ours, theirs = said["Payable by Party A"], said["Payable by Party B"]
    if side is DealSide.DESK_SELLS:
        assert ETH.parse(ours) == units
        assert USDT.parse(theirs.partition(" (")[0]) == found.quote_units + fee
    else:
        base, _, charge = theirs.partition("; ")
        assert USDT.parse(ours) == found.quote_units
        assert ETH.parse(base) == units
        assert (USDT.parse(charge.partition(" (")[0]) if charge else 0) == fee


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Price.parse("3000.25", ETH, USDT), "3,000.25 USDT for 1 ETH"),
        (Price.parse("0.000000000001", ETH, USDT), "0.000000000001 USDT for 1 ETH"),
        (Price.of(3 * 10**6, 10**18, ETH, USDT), "3 USDT for 1 ETH"),
        (
            Price.of(10**6, 3 * 10**18, ETH, USDT),
            "0.333333333333 USDT/ETH, exactly 1/3000000000000 smallest units of USDT for each of ETH",
        ),
    ],
)
def test_a_price_is_written_exactly(price: Price, text: str) -> None:
    assert price_text(price) == text


@given(mantissa=st.integers(1, 10**15), places=st.integers(0, 12))
def test_a_decimal_price_is_written_as_it_was_typed(mantissa: int, places: int) -> None:
    typed = Asset("USDT", places).format(mantissa, code=False).replace(",", "")

    written = price_text(Price.parse(typed, ETH, USDT))

    assert written.replace(",", "") == f"{typed} USDT for 1 ETH"


def test_a_rounded_countervalue_says_for_whom_it_is_rounded() -> None:
    found = deal(base_units=1, price=Price.of(3, 2, ETH, USDT), fee_units=0)

    assert rows(facts(found))["Rounding"] == "to the smallest unit of USDT, for acme"


def test_a_netting_agreement_is_named_by_version_and_document() -> None:
    said = rows(facts(agreed=Agreed(date(2025, 6, 1), 2, "ab" * 32)))

    assert "netting agreement version 2 of 2025-06-01" in said["Method"]
    assert "ab" * 32 in said["Method"]


@pytest.mark.parametrize(
    ("paid", "to_them", "to_us"),
    [
        (Paid(Rail.BOOK, None, None), "by book, to its account", "by book, from the account"),
        (Paid(Rail.EVM, None, None), "Party B has still to give one", "by evm to the address"),
    ],
)
def test_how_each_asset_moves_is_said(paid: Paid, to_them: str, to_us: str) -> None:
    said = rows(facts(paid={"ETH": paid, "USDT": paid}))

    assert to_them in said["Delivery to Party B"]
    assert said["Delivery to Party A"].startswith(f"USDT: {to_us}")


def test_assets_of_any_code_can_be_confirmed() -> None:
    base, quote = Asset("A" * 32, 18), Asset("B" * 32, 6)
    found = deal(base=base, quote=quote, price=Price.parse("3000", base, quote))

    document = confirm(facts(found))

    assert parse(document.to_text()) == document


def test_an_amendment_says_what_it_changes_and_that_the_rest_stays() -> None:
    before = deal(UUID(int=0xD0))
    after = deal(UUID(int=0xD1), base_units=ETH.parse("12"), value_date=date(2026, 1, 7))
    document = confirm(facts(after, kind=ConfirmationKind.AMENDMENT, version=2, before=before))

    (changes,) = [s for s in document.sections if s.heading == "Changed by this version"]
    assert {row.label: row.value for row in changes.rows} == {
        "Amount": "10 ETH, now 12 ETH",
        "Countervalue": "30,000 USDT, now 36,000 USDT",
        "Value date": "2026-01-06 (Tuesday), now 2026-01-07 (Wednesday)",
    }
    assert changes.sentences == ("All other terms are as before.",)
    said = values(document)
    assert said["Type of operation"] == "AMENDMENT, in place of version 1"
    assert said["In place of deal"] == str(before.id)


def test_a_cancellation_says_that_nobody_owes_anything() -> None:
    document = confirm(facts(kind=ConfirmationKind.CANCELLATION, version=2))

    assert document.title == "CANCELLATION OF A TRADE"
    assert "neither party owes the other anything" in document.to_text().replace("\n", " ")
    assert values(document)["Type of operation"] == "CANCELLATION of version 1"
    assert values(document)["Amount"] == "10 ETH"


def test_the_evidence_is_named_by_id_and_the_people_by_code() -> None:
    found = deal(origin=DealOrigin.QUOTE, quote_id=UUID(int=0xA0))
    said = rows(facts(found))

    assert said["Price on record"] == str(UUID(int=0xF0))
    assert said["Quote"] == str(UUID(int=0xA0))
    assert said["Terms of dealing"] == "version 2"
    assert said["Booked"].endswith("by dan")
    assert said["Issued"].endswith("by system:confirmations")
    assert said["Agreed"].endswith("quote accepted")


def test_the_markets_mid_and_our_reasons_are_not_told_to_the_client() -> None:
    found = replace(deal(reason="fat finger of ours"), mid_price_id=UUID(int=0xE0))

    text = confirm(facts(found)).to_text()

    assert str(UUID(int=0xE0)) not in text
    assert "fat finger" not in text


def test_the_line_to_sign_is_the_one_that_is_verified() -> None:
    digest = "0123456789abcdef" * 4

    assert AFFIRM_LINE.replace("HASH", digest).encode() == affirmation_bytes(digest)
    assert AFFIRM_LINE in confirm(facts()).to_text().splitlines()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Two  spaces Ltd", "Two spaces Ltd"),
        ("Tab\tLtd", "Tab Ltd"),
        ("North - South Ltd", "North - South Ltd"),
        ("North --- South Ltd", "North - South Ltd"),
        (" ", "causeway-desk"),
    ],
)
def test_whatever_name_we_have_a_confirmation_can_be_written(name: str, said: str) -> None:
    document = confirm(facts(entity=replace(ENTITY, name=name)))

    assert values(document)["Seller"] == f"{said} (sells ETH)"
    assert parse(document.to_text()) == document


def test_a_deal_of_before_its_instructions_were_resolved_is_confirmed_all_the_same() -> None:
    said = rows(facts(paid={}))

    assert said["Delivery to Party B"].startswith("ETH: as the settlement instruction")
    assert said["Delivery to Party A"].startswith("USDT: as the settlement instruction")


FIELDS: list[dict[str, Any]] = [
    {"party": "birch"},
    {"side": DealSide.DESK_BUYS},
    {"base_units": ETH.parse("11")},
    {"price": Price.parse("3001", ETH, USDT)},
    {"fee_units": 0},
    {"value_date": date(2026, 1, 7)},
    {"client_ref": "deal-2"},
    {"desk": "second"},
    {"booked_by": "ada"},
]


@pytest.mark.parametrize("change", FIELDS, ids=lambda change: next(iter(change)))
def test_no_term_can_change_without_the_text_changing(change: dict[str, Any]) -> None:
    assert confirm(facts(deal(**change))).to_text() != confirm(facts()).to_text()
