"""A period for a general ledger: mapped, balanced, tied to the trial balance, the same twice."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from ledger.export.general_ledger import (
    Moved,
    Period,
    Rule,
    make_batch,
    map_hash,
    read_map,
    require_tied,
)
from ledger.export.gl_exporting import export_gl
from ledger.export.model import ExportRefused
from ledger.model import transfer
from ledger.periods import close_period, reopen_period
from ledger.posting import post
from ledger.scenarios import name_id
from tests.ledger.export.conftest import ASSETS, BOOK, START, names_in
from tests.ledger.export.test_export_texts import frame

MAP = """pattern,asset,account
client:*,*,2100
client:**,*,2110
custody:**,USD,1010
custody:**,*,1020
**,*,9999
"""
RULES = read_map(MAP, toml=False)
YEAR_END = Period(date(2025, 12, 1), date(2025, 12, 31))
JANUARY = Period(date(2026, 1, 1), date(2026, 1, 31))


def test_a_map_is_csv_or_toml_and_means_the_same() -> None:
    toml = "".join(
        f'[[rule]]\npattern = "{rule.pattern}"\nasset = "{rule.asset}"\naccount = "{rule.account}"\n'
        for rule in RULES
    )

    assert read_map(toml, toml=True) == RULES
    assert map_hash(read_map(toml, toml=True)) == map_hash(RULES)
    assert map_hash(RULES[1:]) != map_hash(RULES)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("client:acme", "client:acme", True),
        ("client:acme", "client:acme:held", False),
        ("client:*", "client:acme", True),
        ("client:*", "client:acme:held", False),
        ("client:**", "client:acme:held", True),
        ("client:*:held", "client:acme:held", True),
        ("**:held", "client:acme:held", True),
        ("venue:*", "venue:binance/main", True),
        ("a.b", "axb", False),
        ("**", "anything:at/all", True),
        ("client:ac*e", "client:acme", True),
    ],
)
def test_a_star_is_any_text_in_a_segment_and_two_are_any_text(
    pattern: str,
    path: str,
    fits: bool,  # noqa: FBT001  a column of the table
) -> None:
    assert Rule(pattern, "*", "1").fits(path, "BTC") is fits
    assert not Rule(pattern, "ETH", "1").fits(path, "BTC")


@pytest.mark.parametrize(
    ("given", "toml", "said"),
    [
        ("", False, "1 to 10000 rules, not 0"),
        ("pattern,asset\nx,y\n", False, "line 2 of the map"),
        ("pattern,asset,account\nx,y\n", False, "line 2 of the map"),
        ("pattern,asset,account\nx,y,z,w\n", False, "line 2 of the map"),
        ("pattern,asset,account\nclient:?,*,1\n", False, "line 2 of the map"),
        ("pattern,asset,account\n**,*,\n", False, "line 2 of the map"),
        ('pattern,asset,account\n**,*,"a\nb"\n', False, "not an account"),
        ('pattern,asset,account\n**,*,"a\n', False, "not CSV"),
        ("[[rule]]\npattern = 1\n", True, "rule 1 of the map"),
        ("x = 1\n", True, "more than"),
        ("[[", True, "not TOML"),
    ],
)
def test_what_is_no_map_is_refused_with_its_place(
    given: str,
    toml: bool,  # noqa: FBT001  a column of the table
    said: str,
) -> None:
    with pytest.raises(BadInput, match=said):
        read_map(given, toml=toml)


def test_the_first_rule_that_fits_counts() -> None:
    batch = make_batch(frame(), JANUARY, RULES, {1: Moved(150, 0), 2: Moved(0, 150)}, is_final=True)

    assert [(line.account, line.debits, line.credits) for line in batch.lines] == [
        ("1020", 150, 0),
        ("2100", 0, 150),
    ]


def test_every_account_without_a_rule_is_named_at_once() -> None:
    with pytest.raises(ExportRefused, match=r"2 accounts .*client:acme BTC, custody:hot BTC"):
        make_batch(frame(), JANUARY, [], {1: Moved(1, 0), 2: Moved(0, 1)}, is_final=True)


def test_an_account_without_movement_needs_no_rule() -> None:
    assert not make_batch(frame(), JANUARY, [], {}, is_final=True).lines


def test_figures_that_are_not_tied_are_refused_with_both() -> None:
    with pytest.raises(
        ExportRefused,
        match=r"custody:hot BTC: transfers debits 1.50 credits 0.00,"
        r" trial balance debits 1.49 credits 0.00",
    ):
        require_tied(frame(), {1: Moved(150, 0)}, {1: Moved(149, 0)})


def test_a_batch_that_does_not_balance_is_refused() -> None:
    with pytest.raises(ExportRefused, match=r"BTC does not balance: debits 1.50, credits 1.49"):
        make_batch(frame(), JANUARY, RULES, {1: Moved(150, 0), 2: Moved(0, 149)}, is_final=True)


def test_a_period_has_an_order() -> None:
    with pytest.raises(BadInput, match="before it begins"):
        Period(date(2026, 1, 2), date(2026, 1, 1))


async def posted_between(
    engine: AsyncEngine, period: Period
) -> dict[tuple[str, str], tuple[int, int]]:
    """Debits and credits by our accounts, straight from the transfers: kinds that move money."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    async with engine.connect() as conn:
        rows = await conn.execute(
            text("""
                SELECT d.path AS debit, c.path AS credit, d.asset, t.amount::text AS amount
                  FROM ledger.transfer t
                  JOIN ledger.account d ON d.book = t.book AND d.number = t.debit
                  JOIN ledger.account c ON c.book = t.book AND c.number = t.credit
                 WHERE t.kind IN (1, 3, 6) AND t.amount > 0
                   AND (coalesce(t.effective_at, t.recorded_at) AT TIME ZONE 'UTC')::date
                       BETWEEN :first AND :last"""),
            {"first": period.first, "last": period.last},
        )
        for row in rows:
            sums[row.debit, row.asset][0] += int(row.amount)
            sums[row.credit, row.asset][1] += int(row.amount)
    return {key: (debits, credits_) for key, (debits, credits_) in sums.items()}


# Back-dated into, recorded in, dated ahead into, all that there is.
@pytest.mark.parametrize(
    "period",
    [
        YEAR_END,
        JANUARY,
        Period(date(2026, 1, 14), date(2026, 1, 31)),
        Period(date(2025, 1, 1), date(2027, 1, 1)),
    ],
)
async def test_a_batch_holds_what_was_posted_in_its_effective_days(
    small_book: AsyncEngine, tmp_path: Path, period: Period
) -> None:
    each = [Rule("**", "*", "all"), *RULES]
    by_account = [Rule(path, "*", path) for path, _ in await posted_between(small_book, period)]
    target = tmp_path / "gl.csv"

    await export_gl(small_book, BOOK, target, period, by_account, assets=ASSETS)

    expected = await posted_between(small_book, period)
    assert expected
    rows = read(target)
    assert {(row["account"], row["currency"]): figures(row) for row in rows} == expected
    assert len(rows) == len(expected)
    await export_gl(small_book, BOOK, target, period, each, assets=ASSETS)
    for row in read(target):
        assert row["debits"] == row["credits"], row


def read(target: Path) -> list[dict[str, str]]:
    with target.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(row: dict[str, str]) -> tuple[int, int]:
    scale = ASSETS[row["currency"]].scale
    debits, credits_ = (int(row[side].replace(".", "")) for side in ("debits", "credits"))
    assert -Decimal(row["debits"]).as_tuple().exponent == scale  # type: ignore[operator]  # finite
    return debits, credits_


async def test_a_closed_period_has_one_batch_however_much_is_posted_later(
    small_book: AsyncEngine, tmp_path: Path
) -> None:
    first = await export_gl(small_book, BOOK, tmp_path / "1", YEAR_END, RULES, assets=ASSETS)
    early = await export_gl(small_book, BOOK, tmp_path / "2", JANUARY, RULES, assets=ASSETS)
    await put(small_book, "later", START + timedelta(days=61))
    second = await export_gl(small_book, BOOK, tmp_path / "3", YEAR_END, RULES, assets=ASSETS)
    late = await export_gl(small_book, BOOK, tmp_path / "4", JANUARY, RULES, assets=ASSETS)
    other = await export_gl(small_book, BOOK, tmp_path / "5", YEAR_END, RULES[1:], assets=ASSETS)

    assert first.is_final
    assert first.id == second.id
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()
    assert not early.is_final
    assert {row["status"] for row in read(tmp_path / "2")} == {"preliminary"}
    assert len({first.id, early.id, late.id, other.id}) == 4


async def test_a_period_that_was_reopened_and_closed_again_is_another_batch(
    small_book: AsyncEngine, tmp_path: Path
) -> None:
    before = await export_gl(small_book, BOOK, tmp_path / "1", YEAR_END, RULES, assets=ASSETS)
    people = {"reason": "late bill", "proposed_by": "ada", "approved_by": "ben"}
    now = START + timedelta(days=61)
    await transact(
        small_book,
        lambda conn: reopen_period(conn, BOOK, date(2025, 11, 30), **people, now=now),
    )
    opened = await export_gl(small_book, BOOK, tmp_path / "2", YEAR_END, RULES, assets=ASSETS)
    await put(small_book, "late", now, effective_at=datetime(2025, 12, 5, tzinfo=UTC))
    await transact(
        small_book,
        lambda conn: close_period(conn, BOOK, date(2025, 12, 31), **people, now=now),
    )
    again = await export_gl(small_book, BOOK, tmp_path / "3", YEAR_END, RULES, assets=ASSETS)

    assert (before.is_final, opened.is_final, again.is_final) == (True, False, True)
    assert len({before.id, opened.id, again.id}) == 3
    assert read(tmp_path / "3") != read(tmp_path / "1")


async def put(
    engine: AsyncEngine, name: str, now: datetime, effective_at: datetime | None = None
) -> None:
    made = transfer(
        name_id(name), "bank:CH-main", "equity:opening", 5, "USD", code="late",
        effective_at=effective_at,
    )  # fmt: skip
    results = await transact(engine, lambda conn: post(conn, BOOK, [made], now=now))
    assert results[0].applied


async def test_nothing_is_written_where_a_balance_was_changed_behind_the_transfers(
    small_book: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE ledger.entry DISABLE TRIGGER USER"))
        await conn.execute(
            text("""
                UPDATE ledger.entry SET debits_posted = debits_posted + 1
                 WHERE (book, account, sequence) IN (
                       SELECT book, account, sequence FROM ledger.entry
                        ORDER BY sequence DESC LIMIT 1)""")
        )
    target = tmp_path / "gl.csv"

    with pytest.raises(ExportRefused, match="not tied to the trial balance"):
        await export_gl(
            small_book, BOOK, target, Period(date(2025, 1, 1), date(2027, 1, 1)), RULES,
            assets=ASSETS,
        )  # fmt: skip

    assert names_in(tmp_path) == []
