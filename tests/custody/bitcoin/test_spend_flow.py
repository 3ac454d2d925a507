"""Payouts on Bitcoin from request to finality, on a chain in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.transactions import decode
from custody.bitcoin.spend_model import SpendState
from custody.payout_model import AttemptState
from custody.payout_model import PayoutState as P
from tests.custody.bitcoin.spend_world import (
    BTC,
    CAPITAL,
    DEPOSITS,
    PAYEES,
    SpendWorld,
    make_spend_world,
)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


async def test_many_payouts_go_in_one_transaction_to_every_kind_of_address(
    world: SpendWorld,
) -> None:
    payouts = await world.several(BTC, BTC // 3, 7_000, 100_000)
    await world.assert_exact()

    report = await world.advance()

    assert report.waiting == {}
    one = await world.only()
    assert sorted(report.sent) == sorted(item.id for item in payouts)
    assert one.spend.state is SpendState.SIGNED
    assert one.current.state is AttemptState.BROADCAST
    assert world.node.pool == {one.current.tx_id}
    sent = decode(one.current.raw or b"")
    assert sent.tx_id == one.current.tx_id
    assert sent.weight <= one.current.weight
    assert len(sent.outputs) == 5
    assert [(o.amount, o.script) for o in sent.outputs] == sorted(
        (o.amount, o.script) for o in sent.outputs
    )
    await world.assert_exact()

    await world.mine()

    assert await world.states(payouts) == {"mined"}
    await world.assert_exact()
    await world.mine(2)
    done = await world.confirm()

    assert {item.state for item in done} == {P.CONFIRMED}
    assert len(done) == 4
    books = await world.books()
    paid = BTC + BTC // 3 + 7_000 + 100_000
    fee = one.current.fee
    assert books["client:acme"][0] == sum(DEPOSITS) - paid
    assert books["custody:btc-pool"] == (sum(DEPOSITS) + CAPITAL - paid - fee, 0, 0)
    assert books["expense:network-fee"] == (fee, 0, 0)
    assert not [path for path in books if path.startswith(("in-flight", "transit"))]
    one = await world.only()
    assert one.spend.state is SpendState.FINAL
    assert sum(item.fee_paid or 0 for item in one.payouts) == fee
    await world.assert_exact()


async def test_change_is_a_coin_of_ours_and_nobodys_deposit(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    await world.mine()

    one = await world.only()

    assert one.spend.change_address is not None
    assert one.spend.change_address not in PAYEES
    books = await world.books()
    assert not [path for path in books if path.startswith("suspense")]
    await world.mine(2)
    await world.confirm()
    await world.approved(client_ref="w-2", amount=6 * BTC)
    await world.advance()
    # The change of the first pays in the second: more than the deposits left alone would.
    second = (await world.spends())[1]
    assert one.spend.change_address in {coin.address for coin in second.current.coins}


async def test_two_spends_never_share_a_coin(world: SpendWorld) -> None:
    await world.approved(amount=2 * BTC)
    await world.advance()
    await world.approved(client_ref="w-2", amount=2 * BTC)
    await world.advance()

    first, second = await world.spends()

    taken = {coin.outpoint for coin in first.current.coins}
    assert taken.isdisjoint(coin.outpoint for coin in second.current.coins)
    await world.assert_exact()


async def test_what_the_coins_cannot_pay_waits_and_holds_nobody_up(world: SpendWorld) -> None:
    await world.approved(client_ref="large", amount=3 * BTC)
    await world.advance()
    waiting = await world.approved(client_ref="later", amount=3 * BTC)
    small = await world.approved(client_ref="small", amount=BTC // 10)

    report = await world.advance()

    assert small.id in report.sent
    assert "are needed" in report.waiting[waiting.id]
    assert (await world.get(waiting)).state is P.APPROVED
    await world.assert_exact()
