"""Names for other programs: legal there, never two things one name, and back again."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.export.model import ExportRefused, exact
from ledger.export.names import (
    beancount_account,
    beancount_commodities,
    beancount_commodity,
    code_of,
    path_of,
    percent,
    unpercent,
)
from ledger.model import Side

# The syntax as beancount's own documentation has it, and as its oldest version in use reads it.
ACCOUNT = re.compile(
    r"(Assets|Liabilities|Equity|Income|Expenses)(:[A-Z0-9][A-Za-z0-9-]*)+", re.ASCII
)
COMMODITY = re.compile(r"[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]")

HEADS = (
    "client",
    "income",
    "house",
    "equity",
    "conversion",
    "expense",
    "collateral",
    "x",
    "fee",
    "X",
)
SEGMENT = st.one_of(
    st.text(st.sampled_from("axX-x.2DE_/0"), min_size=1, max_size=9),
    st.sampled_from(HEADS),
    st.text(min_size=1, max_size=6).filter(lambda text: ":" not in text),
)
PATH = st.builds(
    lambda head, more: ":".join((head, *more)), st.one_of(st.sampled_from(HEADS), SEGMENT),
    st.lists(SEGMENT, max_size=3),
).filter(lambda path: not any("\ud800" <= c <= "\udfff" for c in path))  # fmt: skip
CODE = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_uppercase),
    st.text(st.sampled_from(string.ascii_uppercase + string.digits + ".-"), max_size=31),
)


@pytest.mark.parametrize(
    ("path", "side", "name"),
    [
        ("client:acme", Side.CREDIT, "Liabilities:Client:Acme"),
        ("client:acme-fund:held", Side.CREDIT, "Liabilities:Client:Acme-fund:Held"),
        ("custody:Hot.1", Side.DEBIT, "Assets:Custody:X-Hot-x2E-1"),
        ("venue:binance/main", Side.DEBIT, "Assets:Venue:Binance-x2F-main"),
        ("income:fee", Side.CREDIT, "Income:Fee"),
        ("house:rounding", Side.CREDIT, "Income:House:Rounding"),
        ("expense:network-fee", Side.DEBIT, "Expenses:Network-fee"),
        ("equity:opening", Side.CREDIT, "Equity:Opening"),
        ("conversion:desk", Side.CREDIT, "Equity:Conversion:Desk"),
        ("collateral:taken:acme", Side.CREDIT, "Liabilities:Collateral:Taken:Acme"),
        ("collateral:given:acme", Side.DEBIT, "Assets:Collateral:Given:Acme"),
        ("client:x-ray", Side.CREDIT, "Liabilities:Client:X-x2D-ray"),
        ("client:a-xray", Side.CREDIT, "Liabilities:Client:A-x2D-xray"),
        ("income:house", Side.CREDIT, "Income:Income:House"),
    ],
)
def test_a_path_becomes_an_account_of_the_five_roots(path: str, side: Side, name: str) -> None:
    assert beancount_account(path, side) == name
    assert path_of(name) == path


@given(PATH, st.sampled_from(Side))
def test_any_path_has_a_legal_account_that_leads_back_to_it(path: str, side: Side) -> None:
    name = beancount_account(path, side)

    assert ACCOUNT.fullmatch(name)
    assert path_of(name) == path


@given(st.sets(CODE, max_size=20))
def test_any_asset_has_a_legal_commodity_of_its_own(codes: set[str]) -> None:
    names = beancount_commodities(codes)

    assert len(set(names.values())) == len(codes)
    for code, name in names.items():
        assert COMMODITY.fullmatch(name)
        assert name not in {"TRUE", "FALSE", "NULL"}
        assert code_of(name) in {code, None}
        assert (code_of(name) is None) == ("_" in name)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("BTC", "BTC"),
        ("USDC.E", "USDC.E"),
        ("X", "X'X"),
        ("TRUE", "TRUE'X"),
        ("ABC.", "ABC.'X"),
        ("STAKED-WRAPPED-LIQUID-POINTS-26", "STAKED-WRA_HIKPHFYCILCWH"),
    ],
)
def test_a_commodity_is_the_code_wherever_that_is_legal(code: str, name: str) -> None:
    assert beancount_commodity(code) == name


def test_two_assets_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.export.names.beancount_commodity", lambda _code: "SAME")

    with pytest.raises(ExportRefused, match="B and A would both be the commodity SAME"):
        beancount_commodities(["A", "B"])


@given(st.text().filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_percent_encoding_leaves_one_plain_line_and_leads_back(text: str) -> None:
    encoded = percent(text)

    assert encoded.isascii()
    assert not set(encoded) & set(" \t\r\n,;[](){}\"'")
    assert unpercent(encoded) == text


@pytest.mark.parametrize(
    ("units", "scale", "text"),
    [
        (0, 0, "0"),
        (-5, 0, "-5"),
        (5, 2, "0.05"),
        (-150, 2, "-1.50"),
        (1, 18, "0.000000000000000001"),
        (2**256 - 1, 18, f"{(2**256 - 1) // 10**18}.{(2**256 - 1) % 10**18:018}"),
        (-(2**256 - 1), 36, f"-{(2**256 - 1) // 10**36}.{(2**256 - 1) % 10**36:036}"),
    ],
)
def test_an_amount_is_written_with_every_place_it_has(units: int, scale: int, text: str) -> None:
    assert exact(units, scale) == text
