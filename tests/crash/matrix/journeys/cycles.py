"""A whole settlement cycle over chain, bank and book: the house of `tests.crash.test_settlement_killed`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final

from app.workers.cycles import LEASE
from banks.simulator.bank import Bank
from tests.crash import test_settlement_killed as whole
from tests.crash.matrix.stage import Journey, Stage
from tests.settlement.desk import Desk, open_desk

TURNS_MAX: Final = 60
BEGINS: Final = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)


async def play(stage: Stage) -> Any:
    mortal = stage.mortal
    bank = Bank(date(2026, 1, 5))
    ours = {"iban": whole.OURS.iban, "currency": "EUR", "balance": 1_000_000}
    bank.execute({"verb": "account", **ours})
    async with open_desk(mortal.engine, stage.folder) as desk:
        await whole.three_parties(desk)
        house = whole.House(desk, stage.database.app_url, whole.Doom(), bank, whole.Door(bank))
        mortal.make_mortal(stage.patch, Desk, "follow")
        mortal.pass_lease = partial(desk.clock.advance, LEASE + timedelta(seconds=1))
        desk.clock.advance(BEGINS - desk.now)
        for _ in range(TURNS_MAX):

            async def turn() -> None:
                await house._work(mortal.engine, f"life-{mortal.lives}")

            await mortal.act(turn)
            await house.outside()
            if await house.is_final():
                break
        assert await house.is_final()
        await whole._paid_once(house)


JOURNEYS: Final = (Journey("cycle", "three parties over chain, bank and book", play),)
