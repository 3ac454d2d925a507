"""Fee bumps and ending a security hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.transactions import decode_signed
from chain.testing import ScriptedTransaction
from custody import payout_store as store
from custody.errors import ClientsUncovered
from custody.payout_model import AttemptState, Payout, PayoutState
from custody.payout_replace import prepare_bump
from custody.payout_rescue import abandon_bytes, abandon_payout, resume_bytes, resume_sender
from kernel.errors import Refused
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, STRANGER, World, make_world


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def bump(world: World, payout: Payout, by: str = "dan") -> Payout:
    operator = await world.run(lambda conn: get_operator(conn, by))
    write = await prepare_bump(
        world.engine, world.gateway, payout.id, by=operator, reason="slow", clock=world.clock
    )
    return await world.run(write)


async def test_a_bump_replaces_the_attempt_and_its_holds_on_the_same_nonce(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    first = await world.get(payout)

    bumped = await bump(world, payout)
    books = await world.books()
    assert bumped.fee_cap * 8 >= first.fee_cap * 9
    assert books["custody:client-pool", "ETH"] == (11 * ETH, 0, 2 * ETH + bumped.fee_cap)
    await world.advance()

    old, new = await world.run(lambda conn: store.list_attempts(conn, payout.id))
    assert (old.nonce, new.nonce) == (0, 0)
    assert world.gateway.pool == {new.tx_hash}
    assert old.raw is not None
    assert new.raw is not None
    before = decode_signed(old.raw, chain_id=31337).unsigned
    after = decode_signed(new.raw, chain_id=31337).unsigned
    assert after.max_priority_fee_per_gas * 8 >= before.max_priority_fee_per_gas * 9
    await world.mine(3)
    await world.confirm()
    states = [a.state for a in await world.run(lambda c: store.list_attempts(c, payout.id))]
    assert states == [AttemptState.SUPERSEDED, AttemptState.FINAL]
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert not [key for key, value in (await world.books()).items() if any(value[1:])]
    await world.assert_rule_two()


async def test_the_older_attempt_may_be_mined_instead(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    (first,) = world.gateway.pool
    original = world.gateway._pool[first]
    await bump(world, payout)
    await world.advance()
    (second,) = world.gateway.pool
    world.gateway.drop(second)
    world.gateway.mine(original)
    await world.follow()

    assert (await world.get(payout)).tx_hash == first
    await world.mine(3)
    await world.confirm()
    states = [a.state for a in await world.run(lambda c: store.list_attempts(c, payout.id))]
    assert states == [AttemptState.FINAL, AttemptState.SUPERSEDED]
    assert not [key for key, value in (await world.books()).items() if any(value[1:])]
    await world.assert_rule_two()


async def test_clients_money_does_not_pay_for_a_higher_fee(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    fee = (await world.get(payout)).fee_cap
    places = "expense:loss", "custody:client-pool"
    loss = transfer(UUID(int=7), *places, ETH - fee, "ETH", code="test")

    async def lose(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("expense:loss", "ETH")])
        require_applied(await post(conn, BOOK, [loss]))

    await world.run(lose)
    books = await world.books()

    with pytest.raises(ClientsUncovered, match="clients' ETH would not be covered: 0 to spare"):
        await bump(world, payout)
    assert await world.books() == books


async def test_only_what_waits_for_a_block_is_bumped(world: World) -> None:
    payout = await world.approved()
    with pytest.raises(Refused, match="nothing of it waits for a block"):
        await bump(world, payout)
    await world.advance()
    with pytest.raises(Refused, match="cleo is not operations or treasurer"):
        await bump(world, payout, by="cleo")
    await bump(world, payout)
    with pytest.raises(Refused, match=r"attempt 2 of payout .* is built"):
        await bump(world, payout)


async def test_two_people_end_a_security_hold(world: World) -> None:
    payout = await world.approved()
    world.gateway.refuse_broadcasts = 1
    await world.advance()
    hot = world.hot["client-pool"]
    thief = ScriptedTransaction(sender=hot, recipient=STRANGER, nonce=0, value=ETH)
    world.gateway.mine(thief)
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    world.gateway.reorg(1, [[], []])
    world.gateway.drop(thief.hash)
    await world.follow()

    async def resume(*people: str) -> None:
        reason = "the thief's block is gone"
        signatures = {
            code: operator_keypair(code).sign(resume_bytes("evm", hot, reason)) for code in people
        }
        await world.run(
            lambda conn: resume_sender(
                conn, "evm", hot, signatures=signatures, reason=reason, now=world.clock.now()
            )
        )

    with pytest.raises(Refused, match="two people"):
        await resume("ada")
    with pytest.raises(Refused, match="dan is not"):
        await resume("ada", "dan")
    await resume("ada", "ben")
    assert (await world.get(payout)).state is PayoutState.SIGNED
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()


async def test_a_held_payout_is_given_up_when_the_strangers_block_is_final(world: World) -> None:
    before = await world.books()
    payout = await world.approved()
    world.gateway.refuse_broadcasts = 1
    await world.advance()
    hot = world.hot["client-pool"]
    thief = ScriptedTransaction(sender=hot, recipient=STRANGER, nonce=0, value=ETH)
    block = world.gateway.mine(thief)
    await world.follow()
    reason = "the key of the hot address was used elsewhere"
    signatures = {
        code: operator_keypair(code).sign(abandon_bytes(payout.id, reason))
        for code in ("ada", "ben")
    }

    async def give_up(finalized: int) -> Payout:
        return await world.run(
            lambda conn: abandon_payout(
                conn,
                payout.id,
                signatures=signatures,
                reason=reason,
                finalized=finalized,
                now=world.clock.now(),
            )
        )

    with pytest.raises(Refused, match="not spent in a final block"):
        await give_up(block.height - 1)
    ended = await give_up(block.height)

    assert ended.state is PayoutState.FAILED_ON_CHAIN
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (10 * ETH - thief.fee, 0, 0),
        ("suspense:unattributed:evm", "ETH"): (-ETH, 0, 0),
        ("expense:network-fee", "ETH"): (thief.fee, 0, 0),
    }
    await world.assert_rule_two()
