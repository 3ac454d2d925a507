"""The worker of a bank's folder: every file once, and not before it is whole."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.bank import FILES_PER_TURN_MAX, SNIFFED_BYTES, StatementInbox
from custody.banks.entry_model import BankFileState
from tests.custody.banks.bank_house import BankHouse


@pytest.fixture
async def house(engine: AsyncEngine) -> BankHouse:
    return await BankHouse(engine).open()


def put(house: BankHouse, path: Path, raw: bytes, *, age: timedelta = timedelta(minutes=1)) -> None:
    path.write_bytes(raw)
    at = int((house.now - age).timestamp())
    os.utime(path, (at, at))


async def test_every_file_is_taken_in_once_and_stays_where_it_is(
    house: BankHouse, tmp_path: Path
) -> None:
    house.credit(100, "RUN-7")
    (raw,) = house.end_of_day()
    put(house, tmp_path / "a.xml", raw)
    put(house, tmp_path / "b.xml", b"junk")
    put(house, tmp_path / "notes.pdf", b"")
    inbox = StatementInbox(engine=house.engine, clock=house.clock, folder=tmp_path)

    first, second = await inbox.turn(), await inbox.turn()

    assert [(r.file.name, r.file.state) for r in first.reports] == [
        ("a.xml", BankFileState.IMPORTED),
        ("b.xml", BankFileState.QUARANTINED),
    ]
    assert second.reports == []
    assert (tmp_path / "a.xml").read_bytes() == raw
    anew = StatementInbox(engine=house.engine, clock=house.clock, folder=tmp_path)
    assert [report.new for report in (await anew.turn()).reports] == [False, False]
    assert await house.balances() == {"bank:desk-eur": 100, "suspense:bank": -100}


async def test_a_file_that_is_still_written_waits(house: BankHouse, tmp_path: Path) -> None:
    (raw,) = house.end_of_day()
    put(house, tmp_path / "a.xml", raw[:50], age=timedelta(seconds=1))
    inbox = StatementInbox(engine=house.engine, clock=house.clock, folder=tmp_path)
    assert (await inbox.turn()).reports == []

    put(house, tmp_path / "a.xml", raw)
    (report,) = (await inbox.turn()).reports
    assert report.file.state is BankFileState.IMPORTED


async def test_a_file_that_comes_whole_later_under_its_name_is_taken_in(
    house: BankHouse, tmp_path: Path
) -> None:
    (raw,) = house.end_of_day()
    put(house, tmp_path / "a.xml", raw[:50])
    inbox = StatementInbox(engine=house.engine, clock=house.clock, folder=tmp_path)
    (bad,) = (await inbox.turn()).reports
    put(house, tmp_path / "a.xml", raw)
    (good,) = (await inbox.turn()).reports

    assert (bad.file.state, good.file.state) == (
        BankFileState.QUARANTINED,
        BankFileState.IMPORTED,
    )


async def test_what_is_no_statement_goes_to_its_reader(house: BankHouse, tmp_path: Path) -> None:
    heard: list[str] = []

    async def reader(name: str, raw: bytes) -> None:
        heard.append(f"{name} {len(raw)}")

    put(house, tmp_path / "r.xml", b'<Document xmlns="urn:...:pain.002.001.10"/>')
    inbox = StatementInbox(
        engine=house.engine, clock=house.clock, folder=tmp_path, readers={"pain.002": reader}
    )
    turns = [await inbox.turn(), await inbox.turn()]

    assert heard == ["r.xml 43"]
    assert [turn.handed_on for turn in turns] == [["r.xml"], []]


async def test_a_payers_text_does_not_say_what_a_message_is(
    house: BankHouse, tmp_path: Path
) -> None:
    heard: list[str] = []

    async def reader(name: str, raw: bytes) -> None:
        heard.append(name)

    trap = 'xmlns="urn:...:pain.002.001.10"'
    house.credit(7, remittance=trap)
    (raw,) = house.end_of_day()
    assert trap.encode() in raw[:SNIFFED_BYTES]
    put(house, tmp_path / "s.xml", raw)
    put(house, tmp_path / "s.sta", f":20:X\n:86:<Document {trap}>\n".encode())
    inbox = StatementInbox(
        engine=house.engine, clock=house.clock, folder=tmp_path, readers={"pain.002": reader}
    )
    turn = await inbox.turn()

    assert heard == []
    assert [report.booked for report in turn.reports] == [0, 1]


async def test_a_turn_takes_a_bounded_number_of_files(house: BankHouse, tmp_path: Path) -> None:
    for number in range(FILES_PER_TURN_MAX + 2):
        put(house, tmp_path / f"{number:03}.xml", b"<x/>")
    inbox = StatementInbox(engine=house.engine, clock=house.clock, folder=tmp_path)

    assert [len((await inbox.turn()).reports) for _ in range(3)] == [FILES_PER_TURN_MAX, 2, 0]
