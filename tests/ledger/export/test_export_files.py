"""An export is the same whenever it is made, whole or absent, and refused where it would be wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from ledger.errors import BookNotOpen
from ledger.export import journal
from ledger.export.exporting import OpenSink, export_journal
from ledger.export.files import whole
from ledger.export.model import By, ExportRefused, Format
from ledger.export.parquet import open_parquet
from ledger.model import transfer
from ledger.posting import open_book, post
from ledger.scenarios import name_id
from tests.ledger.export.conftest import ASSETS, BOOK, START, names_in


def sink_of(kind: Format) -> OpenSink | None:
    return open_parquet if kind is Format.PARQUET else None


@pytest.mark.parametrize("kind", list(Format))
async def test_the_same_record_gives_the_same_bytes_whatever_was_posted_since(
    small_book: AsyncEngine, tmp_path: Path, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = START + timedelta(days=60)

    async def write(name: str) -> str:
        summary = await export_journal(
            small_book, BOOK, tmp_path / name, kind, assets=ASSETS, as_of=at,
            open_sink=sink_of(kind),
        )  # fmt: skip
        return summary.sha256

    first = await write("first")
    made = transfer(name_id("x"), "bank:CH-main", "equity:opening", 5, "USD", code="later")
    await transact(small_book, lambda conn: post(conn, BOOK, [made], now=at + timedelta(minutes=1)))
    monkeypatch.setattr(journal, "RECORDS_AT_ONCE", 97)
    monkeypatch.setattr(journal, "ACCOUNTS_AT_ONCE", 10)
    second = await write("second")

    assert first == second
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert names_in(tmp_path) == ["first", "second"]


@pytest.mark.parametrize("kind", list(Format))
async def test_an_empty_book_is_an_empty_export(
    engine: AsyncEngine, tmp_path: Path, kind: Format
) -> None:
    await transact(engine, lambda conn: open_book(conn, BOOK, entity="causeway-ch", now=START))

    summary = await export_journal(
        engine, BOOK, tmp_path / "out", kind, assets={}, open_sink=sink_of(kind)
    )

    assert (summary.sequence, summary.transfers, summary.accounts) == (0, 0, 0)


async def test_a_book_that_is_not_there_is_said_to_be_missing(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    with pytest.raises(BookNotOpen, match="no book 7"):
        await export_journal(engine, 7, tmp_path / "out", Format.CSV, assets=ASSETS)


async def test_assets_without_a_scale_are_all_named(
    small_book: AsyncEngine, tmp_path: Path
) -> None:
    known = {code: asset for code, asset in ASSETS.items() if code not in {"USD", "X"}}

    with pytest.raises(ExportRefused, match="the scale of USD, X is not known"):
        await export_journal(small_book, BOOK, tmp_path / "out", Format.CSV, assets=known)

    assert names_in(tmp_path) == []


@pytest.mark.parametrize("kind", list(Format))
async def test_a_journal_that_does_not_come_to_its_balances_leaves_the_old_file(
    small_book: AsyncEngine, owner_engine: AsyncEngine, tmp_path: Path, kind: Format
) -> None:
    target = tmp_path / "out"
    target.write_text("as it was")
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE ledger.transfer DISABLE TRIGGER USER"))
        await conn.execute(
            text(
                "UPDATE ledger.transfer SET amount = amount + 1 WHERE sequence ="
                " (SELECT min(sequence) FROM ledger.transfer WHERE kind = 1 AND amount > 0)"
            )
        )

    with pytest.raises(ExportRefused, match=r"transfers of 2 accounts .*custody:hot"):
        await export_journal(
            small_book, BOOK, target, kind, assets=ASSETS, by=By.RECORDED, open_sink=sink_of(kind)
        )

    assert target.read_text() == "as it was"
    assert names_in(tmp_path) == ["out"]


def test_a_file_that_is_left_half_way_leaves_nothing(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def write_half() -> None:
        with whole(tmp_path / "out") as part:
            part.write_text("half")
            raise Stop

    with pytest.raises(Stop):
        write_half()

    assert names_in(tmp_path) == []


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write"), whole(tmp_path / "no/out") as part:
        part.write_text("x")
