"""Ten thousand random transfers of every kind, loaded by the real programs, with our balances."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.money import AMOUNT_MAX
from ledger.export.columns import COLUMNS
from ledger.export.exporting import export_journal
from ledger.export.model import By, ExportSummary, Format
from ledger.export.parquet import open_parquet
from ledger.model import Kind
from tests.ledger.export.conftest import (
    ASSETS,
    BOOK,
    TRANSFERS_MIN,
    WIDE,
    WIDEST,
    Columns,
    balances,
)
from tests.ledger.export.programs import (
    bean_check,
    find_hledger,
    hledger,
    hledger_balances,
    read_beancount,
)

WIDEST_AMOUNT = "115792089237316195423570985008687907853269984665640564039457.584007913129639935"
KINDS = {kind.name.lower() for kind in Kind}


async def write(
    engine: AsyncEngine, target: Path, kind: Format, by: By = By.EFFECTIVE
) -> ExportSummary:
    open_sink = open_parquet if kind is Format.PARQUET else None
    summary = await export_journal(
        engine, BOOK, target, kind, assets=ASSETS, by=by, open_sink=open_sink
    )
    assert summary.transfers >= TRANSFERS_MIN
    return summary


async def kinds_of(engine: AsyncEngine) -> Counter[str]:
    async with engine.connect() as conn:
        rows = await conn.execute(text("SELECT kind, count(*) FROM ledger.transfer GROUP BY kind"))
        return Counter({Kind(kind).name.lower(): count for kind, count in rows})


def units(number: str | Decimal, asset: str) -> int:
    """What a decimal is in smallest units; exact, whatever its length."""
    with localcontext(prec=200):
        found = Decimal(number).scaleb(ASSETS[asset].scale)
        assert found == found.to_integral_value()
        return int(found)


@pytest.mark.parametrize("by", list(By))
async def test_beancount_loads_the_book_and_comes_to_our_trial_balance(
    book: AsyncEngine, tmp_path: Path, by: By
) -> None:
    target = tmp_path / "book.beancount"
    summary = await write(book, target, Format.BEANCOUNT, by)
    expected = await balances(book)

    bean_check(target)
    found = read_beancount(target)

    assert found["errors"] == []
    assert Counter(found["kinds"]) == await kinds_of(book)
    assert found["kinds"].keys() == KINDS
    assert found["events"] > 0
    assert found["asserted"] >= len(expected) == summary.accounts
    assert posted_in_beancount(found) == {
        key: d - c for key, (_, d, _, c) in expected.items() if d != c
    }
    assert held_in_beancount(found) == {
        (side, *key): units
        for key, (dp, _, cp, _) in expected.items()
        for side, units in (("debits", dp), ("credits", cp))
        if units
    }


def posted_in_beancount(found: Any) -> dict[tuple[str, str], int]:
    """What beancount's own sums are in smallest units, by our paths and assets."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for account, commodity, number in found["balances"]:
        asset, _, unit = found["commodities"][commodity]
        with localcontext(prec=200):
            whole = Decimal(number) * Decimal(unit)
        sums[found["opens"][account], asset] += units(whole, asset)
    return {key: found for key, found in sums.items() if found}


def held_in_beancount(found: Any) -> dict[tuple[str, str, str], int]:
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for side, account, commodity, number in found["held"]:
        declared = found["commodities"].get(commodity)
        asset = declared[0] if declared else commodity
        sums[side, found["opens"][account], asset] += int(number)
    return {key: units for key, units in sums.items() if units}


@pytest.mark.parametrize("by", list(By))
async def test_hledger_loads_the_book_and_comes_to_all_four_columns_of_our_trial_balance(
    book: AsyncEngine, tmp_path: Path, by: By
) -> None:
    find_hledger()
    target = tmp_path / "book.journal"
    await write(book, target, Format.HLEDGER, by)
    expected = await balances(book)

    hledger(target, "check", "--strict")
    found = hledger_balances(target)

    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for (account, commodity), number in found.items():
        for at, root in enumerate(("hold:debits:", "hold:credits:", "")):
            if account.startswith(root):
                sums[account.removeprefix(root), commodity][at] = units(number, commodity)
                break
    assert {key: tuple(found) for key, found in sums.items() if any(found)} == {
        key: columns for key, (dp, d, cp, c) in expected.items() if any(columns := (dp, -cp, d - c))
    }
    real = hledger_balances(target, "--real")
    assert {account for account, _ in real} <= {path for path, _ in expected}
    assert Counter(re.findall(r"kind:([a-z]+)", target.read_text())) == await kinds_of(book)


def summed(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Columns]:
    """The four columns of every account that the rows name."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        asset = row["asset"]
        reserved, posted = units(row["reserved"], asset), units(row["posted"], asset)
        for place, side in ((0, "debit"), (2, "credit")):
            sums[row[side], asset][place] += reserved
            sums[row[side], asset][place + 1] += posted
    return {key: (dp, d, cp, c) for key, (dp, d, cp, c) in sums.items() if any((dp, d, cp, c))}


async def test_csv_and_parquet_sum_to_our_trial_balance_and_hold_the_same_cells(
    book: AsyncEngine, tmp_path: Path
) -> None:
    await write(book, tmp_path / "book.csv", Format.CSV)
    await write(book, tmp_path / "book.parquet", Format.PARQUET)
    expected = {key: found for key, found in (await balances(book)).items() if any(found)}

    with (tmp_path / "book.csv").open(encoding="utf-8", newline="") as file:
        comma = list(csv.DictReader(file))
    parquet = pq.read_table(tmp_path / "book.parquet").to_pylist()

    assert summed(comma) == expected
    assert summed(parquet) == expected
    assert tuple(comma[0]) == tuple(parquet[0]) == COLUMNS
    assert Counter(row["kind"] for row in comma) == await kinds_of(book)
    assert {row["asset"] for row in comma} == ASSETS.keys()
    flags = {flag for row in comma for flag in row["flags"].split()}
    assert flags == {"balancing-debit", "closing-debit", "imported", "at-original"}
    assert {row["amount"] for row in comma if row["asset"] == WIDEST.code} == {WIDEST_AMOUNT}
    assert {int(row["scale"]) for row in comma} == set(range(19))
    text_columns = set(COLUMNS) - {"recorded_at", "effective_at"}
    for from_csv, from_parquet in zip(comma, parquet, strict=True):
        for column in text_columns:
            cell = from_parquet[column]
            assert from_csv[column] == ("" if cell is None else str(cell)), column


async def test_the_random_book_has_sums_that_beancount_alone_would_round(
    book: AsyncEngine,
) -> None:
    found = await balances(book)
    turnover = sum(d for (_, asset), (_, d, _, _) in found.items() if asset == WIDE.code)

    assert len(str(turnover)) > 28
    assert found["custody:hot", WIDEST.code] == (0, AMOUNT_MAX, 0, 0)
