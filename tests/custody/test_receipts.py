"""What arrives at settlement addresses, told on a scripted chain and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.errors import ChainHalted
from chain.halts import halt
from custody import receipts as verbs
from custody.deposit_model import Receipt, ReceiptState
from custody.errors import NotPossible, UnknownRow
from custody.policy import ConfirmationPolicy, Requirement, Rule
from kernel.db import constraint_name
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.testing import enforce_lock_order
from tests.custody.house import House


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
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done
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
