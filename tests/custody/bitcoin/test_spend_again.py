"""After a cancellation or a theft is final: whom the real signer pays again, and what it never signs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from custody.bitcoin.spend_moves import Carried
from custody.bitcoin.spend_rescue import abandon_spend, spend_abandon_bytes
from custody.bitcoin.testing import POOL
from custody.control_messages import ScopeKind
from custody.freeze_model import thaw_bytes
from custody.freezes import Scope, get_closed, open_again
from custody.payout_model import PayoutState as P
from kernel.ids import derive_id
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.testing import operator_keypair
from tests.custody.bitcoin.spend_world import BOOK, BTC, DEPOSITS, SpendWorld, make_spend_world

STRANGER = address_of(witness_script(0, bytes(32)), REGTEST) or ""


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


async def pays(world: SpendWorld, **changes: object) -> None:
    payout = await world.approved(**changes)
    report = await world.advance()
    assert (await world.get(payout)).state is P.SIGNED, report
    await world.mine(3)
    assert [item.id for item in await world.confirm()] == [payout.id]
    await world.assert_exact()


async def give_up(world: SpendWorld, spend_id: UUID) -> None:
    reason, finalized = "a stranger has a key", await world.node.finalized_height()
    signatures = both(spend_abandon_bytes(spend_id, reason))
    await world.run(
        lambda conn: abandon_spend(
            conn,
            spend_id,
            signatures=signatures,
            reason=reason,
            finalized=finalized,
            now=world.clock.now(),
        )
    )


async def robbed_and_given_up(world: SpendWorld) -> Carried:
    """Return a spend that is over because a stranger took a coin of it, which was not its anchor."""
    payout = await world.approved(amount=5 * BTC)
    await world.advance()
    one = await world.only()
    rest = [coin for coin in one.current.coins if coin.outpoint != one.spend.anchor]
    taken = min(rest, key=lambda coin: coin.amount)
    world.node.mine(world.node.pay((STRANGER, taken.amount - 500), spend=[taken.outpoint]))
    await world.follow()
    await world.mine(FINAL_DEPTH)
    await give_up(world, one.spend.id)
    assert (await world.get(payout)).state is P.FAILED_ON_CHAIN
    await thaw(world)
    await world.run(lambda conn: cover(conn, taken.amount, world.clock.now()))
    return one


async def cover(conn: AsyncConnection, amount: int, now: datetime) -> None:
    """Let the desk bear the loss: as much of what acme has is the desk's from now on."""
    given = transfer(
        derive_id(now, "cover"), "client:acme", "equity:capital", amount, "BTC", code="test.cover"
    )
    require_applied(await post(conn, BOOK, [given], now=now))


async def thaw(world: SpendWorld) -> None:
    scope, reason = Scope(ScopeKind.WALLET, POOL), "seen to"
    closed = await world.run(lambda conn: get_closed(conn, scope))
    signatures = both(thaw_bytes(closed.id, reason))
    await world.run(
        lambda conn: open_again(
            conn, scope, signatures=signatures, reason=reason, now=world.clock.now()
        )
    )


def both(payload: bytes) -> dict[str, bytes]:
    return {code: operator_keypair(code).sign(payload) for code in ("ada", "ben")}


async def test_a_claim_is_paid_again_only_as_a_new_payout_that_people_approve_anew(
    world: SpendWorld,
) -> None:
    first = await world.approved()
    await world.advance()
    await world.cancel((await world.only()).spend)
    await world.advance()
    await world.mine(1 + FINAL_DEPTH)
    await world.confirm()
    assert (await world.get(first)).state is P.CANCELLED

    # The same request is the same payout, which is over: nothing has to be told to the signer.
    again = await world.request()
    assert (again.id, again.state) == (first.id, P.CANCELLED)
    report = await world.advance()
    assert (report.allocated, report.signed) == ([], [])
    await pays(world, client_ref="w-2")

    assert (await world.books())["client:acme"] == (sum(DEPOSITS) - first.amount, 0, 0)


async def test_the_coins_of_a_spend_that_was_given_up_pay_others(world: SpendWorld) -> None:
    one = await robbed_and_given_up(world)

    # The signer keeps an anchor for its payments for ever: another coin is the anchor from now on,
    # also where that one coin alone would have done.
    (old,) = [coin for coin in one.current.coins if coin.outpoint == one.spend.anchor]
    await pays(world, client_ref="alone", amount=old.amount - 1_000)
    await pays(world, client_ref="w-2", amount=BTC // 10)

    assert one.spend.anchor not in {item.spend.anchor for item in (await world.spends())[1:]}


async def test_a_coin_that_anchored_what_was_given_up_pays_beside_another(
    world: SpendWorld,
) -> None:
    one = await robbed_and_given_up(world)

    await pays(world, client_ref="w-2", amount=4 * BTC)

    second = (await world.spends())[1]
    assert one.spend.anchor in {coin.outpoint for coin in second.current.coins}
    assert one.spend.anchor != second.spend.anchor
