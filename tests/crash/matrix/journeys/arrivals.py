"""What arrives: receipts on a chain, what a pool shows before, and what a bank's statement brings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from chain.testing import ScriptedTransaction
from custody.pending import DROPPED_AFTER
from ledger.verification import verify
from tests.crash.matrix.journeys.told_by_tests import Test, stories_of
from tests.crash.matrix.stage import Journey, Stage
from tests.custody import test_deposit_ways as ways
from tests.custody import test_receipts
from tests.custody.banks import test_statement_import
from tests.custody.banks.bank_house import BankHouse
from tests.custody.house import BOOK, ETHER, OTHER, House

RECEIPTS: Final = {
    "test_a_receipt_is_held_then_final_in_suspense",
    "test_a_receipt_that_is_reorganised_away_is_never_final",
    "test_mined_again_it_is_the_same_receipt",
    "test_a_receipt_is_matched_once",
    "test_a_matched_receipt_whose_block_vanishes_is_reversed_and_told",
}
STATEMENTS: Final = {
    "test_a_credit_lies_in_suspense_until_it_is_matched",
    "test_charges_and_interest_are_booked_as_such",
    "test_the_same_bytes_are_nothing_new_whatever_they_are_called",
    "test_a_statement_that_says_something_else_is_put_aside",
    "test_a_credit_that_the_bank_takes_back_is_over",
    "test_a_matched_credit_that_is_taken_back_becomes_a_recall",
    "test_a_file_of_an_unknown_account_is_read_again_once_that_is_registered",
    "test_a_file_is_dismissed_with_a_reason",
}


async def opened(stage: Stage) -> House:
    """Open a house on a chain whose pool can be seen."""
    mortal = stage.mortal
    house = House(mortal.engine, gateway=ways.LyingGateway())
    mortal.make_mortal(stage.patch, House, "follow", "advance")
    mortal.make_asking_mortal(stage.patch, House, "do")
    mortal.pass_lease = partial(house.clock.advance, timedelta(seconds=1))
    return await house.open()


async def receipts(test: Test, stage: Stage) -> Any:
    await test(await opened(stage))
    assert await verify(stage.mortal.direct, BOOK) == []


async def statements(test: Test, stage: Stage) -> Any:
    mortal = stage.mortal
    house = BankHouse(mortal.engine)
    mortal.make_asking_mortal(stage.patch, BankHouse, "do")
    mortal.pass_lease = partial(house.clock.advance, timedelta(seconds=1))
    await test(await house.open())
    assert await verify(mortal.direct, BOOK) == []


@dataclass
class Pool:
    """A house that looks at a pool in which a client's payment waits."""

    stage: Stage
    house: House
    waiting: ScriptedTransaction

    async def look(self) -> None:
        await self.stage.mortal.act(partial(ways.look, self.house))

    async def in_a_block(self) -> None:
        self.house.mine(self.waiting)
        await self.house.follow()

    async def forgotten(self) -> None:
        ways.lying(self.house).drop(self.waiting.hash)
        await self.look()
        self.house.clock.advance(DROPPED_AFTER + timedelta(seconds=1))
        await self.look()

    async def replaced(self) -> None:
        ways.lying(self.house).drop(self.waiting.hash)
        self.house.mine(self.house.pay(OTHER, 1, nonce=0))
        await self.house.follow()
        await self.look()


async def is_orphaned(pool: Pool) -> None:
    await pool.in_a_block()
    pool.house.gateway.reorg(1, [[], []])
    await pool.house.follow()


async def is_forgotten_and_included(pool: Pool) -> None:
    await pool.forgotten()
    await pool.in_a_block()


async def is_forgotten_and_comes_back(pool: Pool) -> None:
    await pool.forgotten()
    ways.lying(pool.house).wait(pool.waiting)
    await pool.look()


async def is_replaced(pool: Pool) -> None:
    await pool.replaced()


Tale = Callable[[Pool], Awaitable[None]]


async def waits(tale: Tale, ends: str, stage: Stage) -> Any:
    house = await opened(stage)
    pool = Pool(stage, house, house.pay(house.acme, ETHER, nonce=0))
    ways.lying(house).wait(pool.waiting)
    await pool.look()
    await tale(pool)
    assert await ways.pending(house) == [ends]
    # What is only seen is never posted.
    posted, _ = (await house.balances()).get("client:acme ETH", (0, 0))
    assert posted == 0


POOLS: Final[dict[str, tuple[Tale, str]]] = {
    "included and orphaned": (is_orphaned, "seen"),
    "forgotten and included": (is_forgotten_and_included, "included"),
    "forgotten and back": (is_forgotten_and_comes_back, "seen"),
    "replaced": (is_replaced, "replaced"),
}
JOURNEYS: Final = (
    *(
        Journey("receipt", name, partial(receipts, test))
        for name, _, test in stories_of(test_receipts, "house", only=RECEIPTS)
    ),
    *(
        Journey("statement", name, partial(statements, test))
        for name, _, test in stories_of(test_statement_import, "house", only=STATEMENTS)
    ),
    *(Journey("pool", name, partial(waits, tale, ends)) for name, (tale, ends) in POOLS.items()),
)
