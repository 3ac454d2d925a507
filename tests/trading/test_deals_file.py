"""Deals from a file: faults by line and column, one answer each, the same file again is nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.money import Asset
from ledger.imports.errors import FilesNotValid
from registry.errors import UnknownRecord
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, NOW, balances
from trading.deal_file import COLUMNS, FILE_BYTES_MAX, ROWS_MAX, read_deals
from trading.deal_import import ImportedDeal, import_deals
from trading.errors import DealConflict
from trading.model import Deal, DealOrigin, DealPurpose
from trading.terms.testing import give_terms

HEADER = ",".join(COLUMNS.needed)
WIDE = ",".join((*COLUMNS.needed, *COLUMNS.optional))
ASSETS: dict[str, Asset] = {"ETH": ETH, "USDT": USDT}


def faults(*lines: str, header: str = HEADER) -> list[str]:
    with pytest.raises(FilesNotValid) as refused:
        read_deals("deals.csv", "\n".join([header, *lines]).encode(), ASSETS)
    return [f"{fault.line} {fault.column}" for fault in refused.value.faults]


async def imported(
    engine: AsyncEngine, *lines: str, header: str = HEADER, days: int = 0
) -> list[ImportedDeal]:
    data = "\n".join([header, *lines]).encode()
    now = NOW + timedelta(days=days)
    return await transact(
        engine, lambda conn: import_deals(conn, "deals.csv", data, book=BOOK, by="dan", now=now)
    )


def test_every_fault_is_named_by_line_and_column() -> None:
    assert faults(
        "d-1,acme,sell,2,ETH,3000,USDT",
        "d-2,acme,short,2,ETH,3000,USDT",
        "d-3,acme,sell,0,ETH,3000,USDT",
        "d-4,acme,sell,2,DOGE,3000,USDT",
        'd-5,acme,sell,2,ETH,"3,00",USDT',
        ",acme,sell,2,ETH,3000,USDT",
        "d-7,some body,sell,2,ETH,3000,USDT",
        "d-8,acme,sell,2,ETH",
    ) == ["3 side", "4 amount", "5 base", "6 price", "7 ref", "8 party", "9 "]
    assert faults("d-1,acme,sell,2,ETH,3000,USDT,-1,tomorrow,noon,,gift,,", header=WIDE) == [
        *("2 agreed_at", "2 fee", "2 purpose", "2 value_date"),
    ]
    assert faults(header="ref,party") == [
        *("1 amount", "1 base", "1 price", "1 quote", "1 side"),
    ]


def test_of_a_file_that_is_too_long_no_more_is_read_than_says_so() -> None:
    lines = [f"d-{n},acme,sell,1,ETH,3000,USDT" for n in range(ROWS_MAX + 1)]

    assert faults(*lines, "one more,that nobody reads") == ["0 "]
    assert faults("x" * FILE_BYTES_MAX) == ["0 "]


async def test_each_line_has_its_answer_and_the_same_file_again_books_nothing(
    house: AsyncEngine,
) -> None:
    lines = (
        "d-1,acme,sell,2,ETH,3000,USDT",
        "d-2,nobody,sell,2,ETH,3000,USDT",
        "d-3,birch,buy,1.5,ETH,2999.5,USDT",
        "d-1,acme,sell,3,ETH,3000,USDT",
        "d-5,acme,sell,0.000000000000000001,ETH,3000,USDT",
        "d-3,birch,buy,1.5,ETH,2999.5,USDT",
    )

    first = await imported(house, *lines)
    again = await imported(house, *lines, days=1)

    assert [(item.line, type(item.outcome).__name__, item.is_new) for item in first] == [
        (2, "Deal", True),
        (3, UnknownRecord.__name__, False),
        (4, "Deal", True),
        (5, DealConflict.__name__, False),
        (6, "BadInput", False),
        (7, "Deal", False),
    ]
    assert not any(item.is_new for item in again)
    assert [item.outcome for item in again if isinstance(item.outcome, Deal)] == [
        item.outcome for item in first if isinstance(item.outcome, Deal)
    ]
    assert (await balances(house))["conversion:otc ETH"] == "-0.5"


async def test_what_a_line_leaves_open_is_by_the_partys_terms_of_then(house: AsyncEngine) -> None:
    async def terms(fee_ppm: int, desk: str, days: int) -> None:
        now = NOW + timedelta(days=days)
        await transact(
            house, lambda conn: give_terms(conn, "acme", now=now, fee_ppm=fee_ppm, desk=desk)
        )

    await terms(1_000, "prop", 0)
    lines = (
        "d-1,acme,sell,2,ETH,3000,USDT,,,,,,,",
        "d-2,acme,sell,2,ETH,3000,USDT,0,2026-01-09,2026-01-05T08:00:00Z,otc,client,,by fax",
        "d-3,treasury,buy,2,ETH,3000,USDT,,,,otc,transfer,,",
    )
    first = await imported(house, *lines, header=WIDE)
    await terms(9_000, "otc", 1)
    again = await imported(house, *lines, header=WIDE, days=1)

    by_terms, given, transfer = (item.outcome for item in first)
    assert isinstance(by_terms, Deal)
    assert isinstance(given, Deal)
    assert isinstance(transfer, Deal)
    assert (by_terms.fee, by_terms.request.desk) == (("USDT", USDT.parse("6")), "prop")
    assert (given.fee, given.request.desk) == (None, "otc")
    assert (given.value_date.isoformat(), given.agreed_at) == (
        "2026-01-09",
        NOW - timedelta(hours=1),
    )
    assert transfer.request.purpose is DealPurpose.TRANSFER
    assert {item.request.origin for item in (by_terms, given, transfer)} == {DealOrigin.FILE}
    assert [item.outcome for item in again] == [item.outcome for item in first]
