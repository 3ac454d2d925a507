"""What arrives: receipts on a chain, what a pool shows before, and what a bank's statement brings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.halts import resume, resume_request
from chain.model import FollowState
from chain.testing import ScriptedTransaction
from custody.deposit_model import ReceiptState
from custody.pending import DROPPED_AFTER
from ledger.verification import verify
from registry.testing import TOKEN, operator_keypair
from tests.crash.matrix.journeys.told_by_tests import Test, stories_of
from tests.crash.matrix.stage import Journey, Stage
from tests.custody import test_deposit_ways as ways
from tests.custody import test_receipts
from tests.custody.banks import test_statement_import
from tests.custody.banks.bank_house import BankHouse
from tests.custody.house import BOOK, ETHER, OTHER, House

CONFIRMED_AFTER: Final = 3
LOST: Final = 3
"""What the token keeps of each transfer."""
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


async def opened(stage: Stage, *, lying: bool = True) -> House:
    """Open a house on a chain whose pool can be seen, or whose token moves less than it logs."""
    mortal = stage.mortal
    gateway = ways.LyingGateway() if lying else test_receipts.Lossy()
    house = House(mortal.engine, gateway=gateway, proves=not lying)
    mortal.make_mortal(stage.patch, House, "follow", "advance")
    mortal.make_asking_mortal(stage.patch, House, "do")
    mortal.pass_lease = partial(house.clock.advance, timedelta(seconds=1))
    return await house.open()


async def receipts(test: Test, stage: Stage) -> Any:
    await test(await opened(stage))
    assert await verify(stage.mortal.direct, BOOK) == []


async def of_nothing(stage: Stage) -> Any:
    """A token moves less than it logs; then the block vanishes."""
    house = await opened(stage, lying=False)
    stage.patch.setattr(test_receipts.Lossy, "losses", {(house.settlement, TOKEN): LOST})
    house.mine(house.pay_token((house.settlement, LOST)), empty_after=2)
    await house.catch_up()
    assert [item.state for item in await house.receipts()] == [ReceiptState.NOT_RECEIVED]
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert [item.state for item in await house.receipts()] == [ReceiptState.ORPHANED]
    assert await house.balances() == {}
    assert await verify(stage.mortal.direct, BOOK) == []


async def of_a_block_that_vanishes(house: House) -> None:
    """It is final by policy and matched to nothing yet."""
    await test_receipts.final(house)
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert [item.state for item in await house.receipts()] == [ReceiptState.REVERSED]
    assert await house.balances() == {}


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


async def is_replaced_and_comes_back(pool: Pool) -> None:
    await pool.replaced()
    pool.house.gateway.reorg(1, [[], []])
    await pool.house.follow()
    ways.lying(pool.house).wait(pool.waiting)
    await pool.look()


async def is_replaced_and_included(pool: Pool) -> None:
    await pool.replaced()
    pool.house.gateway.reorg(1, [[pool.waiting], []])
    await pool.house.follow()


async def comes_back(house: House) -> None:
    """A branch wins, and loses again: its first block is one that the books had already."""
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()
    kept = house.gateway._branch.copy()
    house.gateway.reorg(1, [[], []])
    await house.catch_up()
    house.gateway._branch = kept
    for _ in range(CONFIRMED_AFTER):
        house.gateway.mine()
    await house.catch_up()
    assert await house.states() == ["credited"]
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def halts(house: House) -> None:
    """A branch loses more blocks than policy foresees, and two people let the chain go on."""
    paid = house.pay(house.acme, ETHER)
    house.mine(paid, empty_after=CONFIRMED_AFTER - 1)
    await house.catch_up()
    house.gateway.reorg(CONFIRMED_AFTER, [[], [paid], [], []])
    report = await house.follow(reorg_depth_max=1)
    assert report.state is FollowState.HALTED
    await house.do(partial(_resumed, house))
    await house.follow(reorg_depth_max=1)
    await house.advance()
    assert await house.states() == ["credited"]
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def _resumed(house: House, conn: AsyncConnection) -> None:
    reason, depth = "fork seen", CONFIRMED_AFTER
    request = await resume_request(conn, "evm", reason=reason, depth=depth)
    people = {code: operator_keypair(code).sign(request.payload()) for code in ("ada", "ben")}
    await resume(conn, "evm", signatures=people, reason=reason, depth=depth, now=house.now)


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
    "replaced and back": (is_replaced_and_comes_back, "seen"),
    "replaced and included": (is_replaced_and_included, "included"),
}
JOURNEYS: Final = (
    *(
        Journey("receipt", name, partial(receipts, test))
        for name, _, test in stories_of(test_receipts, "house", only=RECEIPTS)
    ),
    Journey("receipt", "nothing of it arrives", of_nothing),
    Journey("receipt", "its block vanishes", partial(receipts, of_a_block_that_vanishes)),
    *(
        Journey("statement", name, partial(statements, test))
        for name, _, test in stories_of(test_statement_import, "house", only=STATEMENTS)
    ),
    Journey("chain", "a block comes back", partial(receipts, comes_back)),
    Journey("chain", "it halts and goes on", partial(receipts, halts)),
    *(Journey("pool", name, partial(waits, tale, ends)) for name, (tale, ends) in POOLS.items()),
)
