"""The pack of a month on a real house: refused, let pass, built whole, built again the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.reports.month_end import Order, build_pack, check_pack, read_obstacles
from kernel.db import transact
from kernel.errors import BadInput
from ledger.export.general_ledger import read_map
from ledger.export.model import ExportRefused
from ledger.journals.decisions import period_bytes
from ledger.journals.periods import approve_period, propose_close
from marketdata.price_model import Pair
from marketdata.price_snapshots import (
    hash_lines,
    lock_snapshot,
    month_end,
    prepare_snapshot,
    snapshot_bytes,
)
from registry.testing import ETH, USDT, operator_keypair
from reporting.errors import MonthEndRefused, NoRate
from reporting.month_end.obstacles import PERIOD_OPEN, UNRECONCILED
from reporting.month_end.waivers import list_month_ends, waive, waiver_bytes
from reporting.recon.runs import reconcile_house
from reporting.statements.document import sha256_hex
from reporting.valuation.model import Method
from reporting.valuation.runs import list_valuations
from tests.app.reports.month import MAP, a_month
from tests.trading.conftest import BOOK

MONTH = date(2026, 1, 1)
END = month_end(MONTH)
NOW = END + timedelta(days=1)
ORDER = Order(
    book=BOOK,
    month=MONTH,
    rules=read_map(MAP, toml=False),
    currency=USDT,
    method=Method.FIFO,
    draw=None,
    by="cleo",
)


def silent(_: str) -> None:
    """Nobody watches."""


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    """A house whose January is over and whose prices are locked."""
    await a_month(engine, datetime(2026, 1, 1, tzinfo=UTC), END)

    async def lock(conn: AsyncConnection) -> None:
        lines = await prepare_snapshot(conn, MONTH, [Pair(ETH, USDT)], now=NOW)
        signed = operator_keypair("cleo").sign(snapshot_bytes(MONTH, hash_lines(MONTH, lines)))
        await lock_snapshot(conn, MONTH, lines, by="cleo", signature=signed, now=NOW)

    await transact(engine, lock)
    await transact(engine, lambda conn: reconcile_house(conn, BOOK, now=NOW))
    return engine


async def let_pass(house: AsyncEngine) -> list[str]:
    """Let two people pass everything that stands in the way; return its keys."""

    async def work(conn: AsyncConnection) -> list[str]:
        obstacles = await read_obstacles(conn, BOOK, MONTH)
        for obstacle in obstacles:
            payload = waiver_bytes(BOOK, MONTH, obstacle, "seen")
            await waive(
                conn,
                BOOK,
                MONTH,
                obstacle,
                reason="seen",
                by="cleo",
                proposal=operator_keypair("cleo").sign(payload),
                approved_by="ben",
                approval=operator_keypair("ben").sign(payload),
                now=NOW,
            )
        return [item.key for item in obstacles]

    return await transact(house, work)


async def close(house: AsyncEngine) -> None:
    """Close January: one proposes, two sign."""

    async def work(conn: AsyncConnection) -> None:
        last = (END - timedelta(days=1)).date()
        item = await propose_close(conn, BOOK, last, by="cleo", reason="month end", now=NOW)
        for code in ("ada", "ben"):
            signed = operator_keypair(code).sign(period_bytes(item))
            await approve_period(conn, item.id, by=code, signature=signed, now=NOW)

    await transact(house, work)
    passed = await let_pass(house)
    assert {key.partition(":")[0] for key in passed} == {"break"}, "nobody has asked the venue"


async def test_an_open_period_refuses_until_two_people_let_it_pass(
    house: AsyncEngine, tmp_path: Path
) -> None:
    build = partial(build_pack, house, ORDER, now=NOW, progress=silent)
    with pytest.raises(MonthEndRefused, match=r"period-open.*report waive"):
        await build(tmp_path / "pack")
    assert names(tmp_path) == []

    passed = await let_pass(house)
    built = await build(tmp_path / "pack")

    assert names(tmp_path) == ["pack"], "whole, and nothing beside it"
    assert check_pack(tmp_path / "pack") == ()
    assert not built.pack.is_final
    assert [item.key for item, _ in built.pack.passed] == passed
    assert passed[0] == PERIOD_OPEN
    listed = (tmp_path / "pack" / "reconciliation.csv").read_text()
    assert passed[1].removeprefix("break:") in listed


async def test_a_closed_month_is_the_same_pack_whenever_it_is_built(
    house: AsyncEngine, tmp_path: Path
) -> None:
    await close(house)
    first = await build_pack(house, ORDER, tmp_path / "a", now=NOW, progress=silent)
    later = NOW + timedelta(days=9)
    again = await build_pack(house, ORDER, tmp_path / "b", now=later, progress=silent)

    assert first.pack.is_final
    assert again == first
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert manifests[0] == manifests[1]
    assert sha256_hex(manifests[0]) == first.month_end.manifest_sha256
    async with house.connect() as conn:
        assert await list_month_ends(conn, BOOK) == [first.month_end]
        (valuation,) = await list_valuations(conn, BOOK)
    told = json.loads(manifests[0])
    assert told["valuation"]["id"] == str(valuation.id)
    assert valuation.net == USDT.parse("385")


async def test_a_file_that_is_changed_afterwards_is_found(
    house: AsyncEngine, tmp_path: Path
) -> None:
    await close(house)
    await build_pack(house, ORDER, tmp_path / "a", now=NOW, progress=silent)

    (tmp_path / "a" / "statements" / "acme.csv").write_text("another")

    assert check_pack(tmp_path / "a") == ("statements/acme.csv is not the file that was packed",)


async def test_what_breaks_off_leaves_nothing_behind(house: AsyncEngine, tmp_path: Path) -> None:
    await close(house)
    unmapped = replace(ORDER, rules=read_map("pattern,asset,account\nx,*,1\n", toml=False))
    in_ether = replace(ORDER, currency=ETH)

    with pytest.raises(ExportRefused):
        await build_pack(house, unmapped, tmp_path / "a", now=NOW, progress=silent)
    with pytest.raises(NoRate, match="in ETH of USDT"):
        await build_pack(house, in_ether, tmp_path / "a", now=NOW, progress=silent)

    assert names(tmp_path) == []
    async with house.connect() as conn:
        assert await list_month_ends(conn, BOOK) == []


async def test_a_month_that_was_not_compared_with_the_outside_since_stands_in_its_way(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async def told(conn: AsyncConnection) -> list[str]:
        return [item.key for item in await read_obstacles(conn, BOOK, MONTH)]

    assert UNRECONCILED not in await transact(house, told)
    before = END - timedelta(seconds=1)
    await transact(
        owner_engine,
        lambda conn: conn.execute(text("UPDATE reporting.recon_run SET at = :at"), {"at": before}),
    )
    assert UNRECONCILED in await transact(house, told)


async def test_a_folder_that_is_there_is_never_written_over(
    house: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(BadInput, match="is there already"):
        await build_pack(house, ORDER, tmp_path / "a", now=NOW, progress=silent)


async def test_a_month_without_locked_prices_stands_in_its_own_way(
    house: AsyncEngine, tmp_path: Path
) -> None:
    december = replace(ORDER, month=date(2025, 12, 1))

    with pytest.raises(MonthEndRefused, match="prices: the prices of the month's end are not"):
        await build_pack(house, december, tmp_path / "a", now=NOW, progress=silent)
