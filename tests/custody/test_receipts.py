"""What arrives at settlement addresses, told on a scripted chain and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.errors import ChainHalted
from chain.halts import halt
from chain.model import Block
from chain.testing import ScriptedGateway
from custody import receipts as verbs
from custody.deposit_model import DepositState, Receipt, ReceiptState
from custody.errors import NotPossible, UnknownRow
from custody.freezes import find_freeze
from custody.policy import ConfirmationPolicy, Requirement, Rule
from custody.reconciliation import reconcile
from custody.reconciliation_model import Reason, Result, Run
from kernel.db import constraint_name
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.testing import enforce_lock_order
from registry.testing import TOKEN
from tests.custody.house import BOOK, House
from tests.custody.waits import waits_for_a_lock


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


async def final(house: House) -> Receipt:
    house.mine(house.pay_token((house.settlement, 250)), empty_after=2)
    await house.catch_up()
    (receipt,) = await house.receipts()
    assert receipt.state is ReceiptState.FINAL
    return receipt


async def match(house: House, receipt: Receipt, to: str = "obligation-1") -> Receipt:
    return await house.do(
        lambda conn: verbs.mark_matched(
            conn, receipt.id, matched_to=to, by="system:settlement", now=house.now
        )
    )


async def test_a_receipt_is_held_then_final_in_suspense(house: House) -> None:
    house.mine(house.pay_token((house.settlement, 250)))
    await house.catch_up()
    (receipt,) = await house.receipts()
    assert (receipt.state, receipt.party, receipt.reference) == (
        ReceiptState.INCLUDED,
        "acme",
        "run-7",
    )
    assert await house.open_holds() == [("custody:house-settlement", "suspense:evm", 250)]

    house.mine(empty_after=2)
    await house.catch_up()

    assert [r.state for r in await house.receipts()] == [ReceiptState.FINAL]
    assert await house.balances() == {
        "custody:house-settlement USDT": (250, 0),
        "suspense:evm USDT": (250, 0),
    }
    assert await house.deposits() == []
    assert await house.differences() == {}


async def test_a_receipt_that_is_reorganised_away_is_never_final(house: House) -> None:
    house.mine(house.pay_token((house.settlement, 250)))
    await house.catch_up()

    house.gateway.reorg(1, [[], [], [], []])
    await house.catch_up()

    assert [r.state for r in await house.receipts()] == [ReceiptState.ORPHANED]
    assert await house.balances() == {}


async def test_mined_again_it_is_the_same_receipt(house: House) -> None:
    paid = house.pay_token((house.settlement, 250))
    house.mine(paid)
    await house.catch_up()
    (first,) = await house.receipts()

    house.gateway.reorg(1, [[], [paid], [], []])
    await house.catch_up()

    (again,) = await house.receipts()
    assert (again.id, again.epoch, again.state) == (first.id, 2, ReceiptState.FINAL)
    assert (await house.balances())["suspense:evm USDT"] == (250, 0)


async def test_a_receipt_is_matched_once(house: House) -> None:
    receipt = await final(house)

    matched = await match(house, receipt)

    assert (matched.state, matched.matched_to) == (ReceiptState.MATCHED, "obligation-1")
    with pytest.raises(NotPossible, match="matched, not final"):
        await match(house, receipt, "obligation-2")
    told = await house.do(lambda conn: verbs.explain(conn, receipt.id))
    assert [(e.name, e.actor) for e in told] == [
        ("ReceiptIncluded", "system:follower"),
        ("ReceiptFinal", "system:receipts"),
        ("ReceiptMatched", "system:settlement"),
    ]


async def test_who_matches_while_another_does_waits_and_is_refused(house: House) -> None:
    receipt = await final(house)
    async with house.engine.connect() as first:
        transaction = await first.begin()
        await verbs.mark_matched(first, receipt.id, matched_to="a", by="ada", now=house.now)
        second = asyncio.ensure_future(match(house, receipt, "b"))  # noqa: TID251  it has to wait
        await waits_for_a_lock(house.engine)
        await transaction.commit()
        with pytest.raises(NotPossible, match="matched, not final"):
            await second

    (matched,) = await house.receipts()
    assert matched.matched_to == "a"


async def test_nothing_is_matched_before_it_is_final(house: House) -> None:
    house.mine(house.pay_token((house.settlement, 250)))
    await house.catch_up()
    (receipt,) = await house.receipts()

    with pytest.raises(NotPossible, match="included, not final"):
        await match(house, receipt)


async def test_nothing_is_matched_on_a_chain_that_is_halted(house: House) -> None:
    receipt = await final(house)
    await house.do(lambda conn: halt(conn, "evm", by="ada", reason="look", now=house.now))

    with pytest.raises(ChainHalted):
        await match(house, receipt)


async def test_receipts_that_wait_long_do_not_keep_others_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custody.store.PAGE_MAX", 2)
    slow = Rule(Requirement(50), asset="USDT")
    house.policy = ConfirmationPolicy(1, (slow, Rule(Requirement(2))))
    house.mine(*(house.pay_token((house.settlement, 1)) for _ in range(3)), empty_after=1)
    house.mine(house.pay(house.settlement, 7), empty_after=1)
    await house.follow()

    for _ in range(3):
        await house.advance()

    assert (await house.balances())["suspense:evm ETH"] == (7, 0)
    assert (await house.balances())["suspense:evm USDT"] == (0, 3)


async def test_a_laxer_policy_does_not_hurry_a_receipt_that_was_waiting(house: House) -> None:
    house.policy = ConfirmationPolicy.uniform(6)
    house.mine(house.pay_token((house.settlement, 250)), empty_after=2)
    await house.catch_up()
    house.policy = ConfirmationPolicy.uniform(2, version=2)
    await house.catch_up()

    (receipt,) = await house.receipts()
    assert receipt.state is ReceiptState.INCLUDED
    assert receipt.depth_required == 6


@pytest.mark.parametrize("to", ["", "x" * 201])
async def test_a_match_names_what_is_paid(house: House, to: str) -> None:
    receipt = await final(house)

    with pytest.raises(BadInput, match="matched to"):
        await match(house, receipt, to)


async def test_a_matched_receipt_whose_block_vanishes_is_reversed_and_told(house: House) -> None:
    receipt = await final(house)
    await match(house, receipt)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    (gone,) = await house.receipts()
    assert (gone.state, gone.matched_to) == (ReceiptState.REVERSED, "obligation-1")
    assert await house.balances() == {}


async def test_a_receipt_waits_for_policy(house: House) -> None:
    house.policy = ConfirmationPolicy.uniform(4)
    house.mine(house.pay_token((house.settlement, 250)), empty_after=2)
    await house.catch_up()
    assert [r.state for r in await house.receipts()] == [ReceiptState.INCLUDED]

    house.mine()
    await house.catch_up()
    assert [r.state for r in await house.receipts()] == [ReceiptState.FINAL]


async def test_receipts_are_found_by_state_and_party(house: House) -> None:
    receipt = await final(house)

    async def count(**where: object) -> int:
        return len(await house.do(lambda conn: verbs.list_receipts(conn, **where)))  # type: ignore[arg-type]  # the filters below

    assert await count(state=ReceiptState.FINAL, party="acme", chain="evm") == 1
    assert await count(state=ReceiptState.MATCHED) == 0
    assert await count(party="birch") == 0
    assert await count(after=receipt.id) == 0
    assert await house.do(lambda conn: verbs.get_receipt(conn, receipt.id)) == receipt
    with pytest.raises(UnknownRow):
        await house.do(lambda conn: verbs.get_receipt(conn, derive_id(house.now, "no")))


async def test_the_database_refuses_a_match_to_nothing(
    house: House, owner_engine: AsyncEngine
) -> None:
    await final(house)
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text("UPDATE custody.receipt SET state = 'matched'"))
    assert constraint_name(refused.value) == "ck_receipt_matched"


# What really arrived.


class Lossy(ScriptedGateway):
    """A chain whose token moves less than it logs."""

    losses: ClassVar[dict[tuple[str, str | None], int]] = {}
    taken: ClassVar[dict[tuple[str, str | None], int]] = {}
    taken_after: ClassVar[int] = 0

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        found = await super().balance(address, contract, at=at)
        gone = self.losses.get((address, contract), 0)
        if at.height > self.taken_after:
            gone += self.taken.get((address, contract), 0)
        return max(0, found - gone)


async def reconciled(house: House) -> Run:
    return await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now)


@pytest.fixture
async def lossy(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> House:
    house = await House(engine, gateway=Lossy(), proves=True).open()
    monkeypatch.setattr(Lossy, "losses", {(house.settlement, TOKEN): 3})
    return house


async def test_a_token_that_takes_a_fee_is_in_suspense_as_what_arrived(lossy: House) -> None:
    """The log says 100 and the balance 97: 100 in suspense would settle a debt with three of ours."""
    house = lossy
    house.mine(house.pay_token((house.settlement, 100)), empty_after=2)
    await house.catch_up()

    (receipt,) = await house.receipts()
    assert (receipt.state, receipt.amount, receipt.received, receipt.value) == (
        *(ReceiptState.FINAL, 100, 97),
        97,
    )
    assert await house.balances() == {
        "custody:house-settlement USDT": (97, 0),
        "suspense:evm USDT": (97, 0),
    }
    assert await house.open_holds() == []
    assert await house.differences() == {}
    told = await house.do(lambda conn: verbs.explain(conn, receipt.id))
    assert [e.name for e in told] == ["ReceiptIncluded", "ReceiptReceivedLess"]
    assert told[-1].reason.startswith("100 was logged and 97 arrived; policy")

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert await house.balances() == {}


async def test_what_is_not_proven_yet_is_an_item_and_freezes_nothing(lossy: House) -> None:
    """100 were logged, 97 came, and the balances are asked when the block is deep enough."""
    house = lossy
    house.mine(house.pay_token((house.settlement, 100)))
    await house.follow()

    before = await reconciled(house)
    await house.catch_up()
    house.mine(empty_after=2)
    await house.catch_up()
    after = await reconciled(house)

    (item,) = before.items
    assert (item.address, item.difference) == (house.settlement, -3)
    assert [(e.reason, e.amount) for e in item.explanations] == [(Reason.UNPROVEN, -3)]
    assert (before.result, before.differences) == (Result.UNKNOWN, ())
    assert (after.result, after.items) == (Result.CLEAN, ())
    assert await house.do(lambda c: find_freeze(c, wallet="house-settlement")) is None


async def test_what_is_missing_beyond_what_is_not_proven_freezes_the_wallet(
    lossy: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = lossy
    house.mine(house.pay_token((house.settlement, 50)), empty_after=3)
    await house.catch_up()
    house.mine(house.pay_token((house.settlement, 100)))
    await house.follow()
    # 47 are there of before: all of these are gone, and more than the new ones can lack.
    monkeypatch.setattr(Lossy, "losses", {(house.settlement, TOKEN): 150})

    made = await reconciled(house)

    assert [(i.difference, i.awaits_proof) for i in made.items] == [(-100, True), (-47, False)]
    assert made.result is Result.DIFFERENT
    assert await house.do(lambda c: find_freeze(c, wallet="house-settlement")) is not None


async def test_a_theft_beside_an_arrival_is_seen_as_soon_as_the_arrival_is_proven(
    lossy: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = lossy
    monkeypatch.setattr(Lossy, "losses", {})
    house.mine(house.pay_token((house.settlement, 100)))
    await house.follow()
    monkeypatch.setattr(Lossy, "taken", {(house.settlement, TOKEN): 7})
    monkeypatch.setattr(Lossy, "taken_after", (await house.gateway.head()).height)
    house.mine()
    await house.follow()

    assert (await reconciled(house)).result is Result.UNKNOWN
    house.mine(empty_after=2)
    await house.catch_up()
    made = await reconciled(house)

    assert [item.difference for item in made.differences] == [-7]
    assert await house.do(lambda c: find_freeze(c, wallet="house-settlement")) is not None


async def test_a_receipt_of_which_nothing_arrived_is_nobodys_money(lossy: House) -> None:
    house = lossy
    house.mine(house.pay_token((house.settlement, 3)), empty_after=2)
    await house.catch_up()

    (receipt,) = await house.receipts()
    assert (receipt.state, receipt.value) == (ReceiptState.NOT_RECEIVED, 0)
    assert await house.balances() == {}
    assert await house.open_holds() == []
    with pytest.raises(NotPossible, match="not_received, not final"):
        await match(house, receipt)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    (gone,) = await house.receipts()
    assert (gone.state, await house.balances()) == (ReceiptState.ORPHANED, {})


async def test_a_receipt_waits_for_its_proof_and_keeps_no_other_waiting(lossy: House) -> None:
    house = lossy
    house.gateway.unreadable.add(TOKEN)
    house.mine(
        house.pay_token((house.settlement, 100)), house.pay(house.settlement, 7), empty_after=2
    )
    await house.catch_up()

    by_asset = {item.asset: item for item in await house.receipts()}
    assert by_asset["ETH"].state is ReceiptState.FINAL
    assert by_asset["USDT"].state is ReceiptState.INCLUDED
    assert "does not tell its balances" in by_asset["USDT"].waiting_for

    house.gateway.unreadable.clear()
    await house.advance()
    by_asset = {item.asset: item for item in await house.receipts()}
    assert (by_asset["USDT"].state, by_asset["USDT"].waiting_for) == (ReceiptState.FINAL, "")


async def test_deposits_and_receipts_in_the_first_block_ever_followed_are_proven(
    lossy: House,
) -> None:
    """The block before it was never read: its hash is enough to ask for the balances there."""
    house = lossy
    house.mine(
        house.pay_token((house.settlement, 100)), house.pay_token((house.acme, 5)), empty_after=3
    )
    await house.follow(start_height=1)
    await house.advance()

    (receipt,) = await house.receipts()
    (deposit,) = await house.deposits()
    assert (receipt.state, receipt.received) == (ReceiptState.FINAL, 97)
    assert (deposit.state, deposit.received) == (DepositState.CREDITED, 5)
