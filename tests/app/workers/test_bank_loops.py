"""Accounts at banks in the house file, and the loops that they make."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.bank_file import BankSection, parse_banks
from app.workers.bank_loops import bank_loops
from custody.banks import payment_store
from custody.compliance.address_list import NOBODY_LISTED
from kernel.clock import SystemClock
from kernel.errors import BadInput
from tests.custody.banks.pay_world import BOOK, HOUSE, make_world


def test_the_house_file_names_the_accounts_and_their_doors(tmp_path: Path) -> None:
    tables = [
        {"account": "house-eur", "orders": "bank/in", "inbox": "bank/out", "gather_seconds": 60},
        {"account": "house-usd", "orders": "https://bank.example"},
    ]

    first, second = parse_banks(tables, tmp_path / "house.toml")

    assert first == BankSection(
        account="house-eur",
        orders=tmp_path / "bank/in",
        inbox=tmp_path / "bank/out",
        gather=timedelta(minutes=1),
    )
    assert (second.url, second.orders, second.inbox) == ("https://bank.example", None, None)


@pytest.mark.parametrize(
    ("story", "tables"),
    [
        ("it is no list", {"account": "house-eur"}),
        ("no account", [{"orders": "bank/in"}]),
        ("an empty account", [{"account": ""}]),
        ("an unknown key", [{"account": "house-eur", "colour": "blue"}]),
        ("a time that is none", [{"account": "house-eur", "gather_seconds": -1}]),
        ("one account twice", [{"account": "house-eur"}, {"account": "house-eur"}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused(story: str, tables: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        parse_banks(tables, tmp_path / "house.toml")


async def test_a_payment_goes_into_the_folder_once_two_people_have_signed_its_file(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    world = await make_world(engine)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    section = BankSection(account=HOUSE.code, orders=tmp_path / "in", inbox=tmp_path / "out")
    pay, read = bank_loops(
        engine,
        [section],
        book=BOOK,
        clock=world.clock,
        screening=NOBODY_LISTED,
        holder="one",
        pause=timedelta(seconds=1),
    )
    await world.owed()

    world.clock.advance(timedelta(minutes=3))
    assert await pay.turn() == {"drafted": 1}
    assert list((tmp_path / "in").iterdir()) == []
    (file_id,) = await _files(world)
    for person in ("ben", "cleo"):
        await world.sign_file(file_id, person)
    world.clock.advance(timedelta(minutes=3))
    assert await pay.turn() == {"released": 1, "submitted": 1}

    assert len(list((tmp_path / "in").iterdir())) == 1
    assert await read.turn() == {}


async def _files(world: Any) -> list[Any]:
    return [f.id for f in await world.run(lambda c: payment_store.list_files(c, book=BOOK))]


def test_a_house_without_accounts_has_no_such_loops(engine: AsyncEngine) -> None:
    assert (
        bank_loops(
            engine,
            [],
            book=BOOK,
            clock=SystemClock(),
            screening=NOBODY_LISTED,
            holder="one",
            pause=timedelta(seconds=1),
        )
        == []
    )
