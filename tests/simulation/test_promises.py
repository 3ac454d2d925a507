"""The promises of a simulated day can be broken, and each break is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from chain.bitcoin.transactions import Outpoint
from chain.testing import ScriptedTransaction
from custody.payout_model import PayoutRequest
from custody.payouts import request_payout
from tests.settlement.desk import ACME_WALLET, BOOK
from tests.simulation.coins import ELSEWHERE
from tests.simulation.fates import Life, one_connection
from tests.simulation.promises import at_rest, relay_faults
from tests.simulation.steps import deposit
from tests.simulation.treasury import NETWORK
from tests.simulation.world import Workers, World, open_world
from venues.treasury_model import WithdrawalTicket

LATER = '{"id":"b","entity":"deal","entity_id":"1","position":2}'
EARLIER = '{"id":"a","entity":"deal","entity_id":"1","position":1}'


async def test_each_break_of_a_promise_is_named(
    engine: AsyncEngine, database: Database, tmp_path: Path
) -> None:
    people = one_connection(database.app_url)
    try:
        async with open_world(people, tmp_path, Random(1)) as world:
            told: list[str] = []
            await catch_up(world, database.app_url, told)
            assert await at_rest(world, engine, told) == []

            for plant in PLANTED:
                plant(world)
            await deposit(world, Random(1))
            world.desk.gateway.mine_pool()
            await world.do(lambda conn: request_payout(conn, WANTED, book=BOOK, now=world.now))
            found = await at_rest(world, engine, told)
    finally:
        await people.dispose()
    assert [name for name in NAMED if not any(name in fault for fault in found)] == []
    assert relay_faults([EARLIER, LATER, EARLIER]) == []
    assert relay_faults([LATER, EARLIER]) == ["event a of ('deal', '1') was told after a later one"]


async def catch_up(world: World, url: str, told: list[str]) -> None:
    """Let one process do what is to be done."""
    life = Life(url, "life-1")
    workers = Workers(world, life, told.append)
    await workers.watcher.turn()
    await workers.relay.turn()
    await life.close()


def the_bank_pays_twice(world: World) -> None:
    world.bank.paid["CW1"] = 2


def a_file_in_two_versions(world: World) -> None:
    world.door.copies += [("file-1", b"one"), ("file-1", b"another")]


def coins_leave_that_nobody_sent(world: World) -> None:
    stolen = ScriptedTransaction(sender=world.desk.hot["house-hot"], recipient=ACME_WALLET, value=7)
    world.desk.gateway.mine(stolen)


def the_account_at_the_bank_shrinks(world: World) -> None:
    next(iter(world.bank.accounts.values())).balance -= 1


def coins_leave_the_chain_of_coins(world: World) -> None:
    node = world.coins.node
    mine = next(item for item in world.coins.mined if item.tx_id in world.coins.paid_in)
    (taken,) = [Outpoint(mine.tx_id, n) for n, _ in enumerate(mine.outputs)]
    node.mine(node.pay((ELSEWHERE, mine.outputs[0].amount), spend=[taken]))


def the_venue_is_asked_twice(world: World) -> None:
    ticket = WithdrawalTicket(
        id=UUID(int=1),
        withdrawal_id="w1",
        asset="ETH",
        network=NETWORK,
        address=ACME_WALLET,
        amount=1,
        text="0.000000000000000001",
        signed_at=world.now,
        window=timedelta(seconds=5),
    )
    world.vault.requests += [ticket, ticket]


def a_party_is_told_of_a_deal_that_nobody_booked(world: World) -> None:
    world.dealt.add(UUID(int=7))


PLANTED = (
    the_bank_pays_twice,
    a_file_in_two_versions,
    coins_leave_that_nobody_sent,
    the_account_at_the_bank_shrinks,
    coins_leave_the_chain_of_coins,
    the_venue_is_asked_twice,
    a_party_is_told_of_a_deal_that_nobody_booked,
)
NAMED = (
    "the bank has paid CW1 2 times",
    "payment file file-1 has gone out in 2 versions",
    "nobody's (",
    "custody:house-hot is",
    "at the bank 9999999999",
    "is on the chain and credited 0 times",
    "payout w-1 (client:acme, 5 ETH) is pending_approval",
    "was never told",
    "custody:btc-pool is 750000000 BTC, its coins come to 450000000",
    "withdrawal w1 was asked for 2 times",
    "was told of and is not there",
)
WANTED = PayoutRequest(
    client_ref="w-1",
    claim="client:acme",
    source_wallet="client-pool",
    asset="ETH",
    amount=5,
    destination=ACME_WALLET,
    requested_by="dan",
)
