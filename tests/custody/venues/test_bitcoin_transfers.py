"""Bitcoin to a venue and back on the scripted chain: the same machines, another rail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.testing import ScriptedBitcoin
from custody.allow_list import destination_bytes, get_destination
from custody.bitcoin.testing import CHAIN, HOT, POOL, with_bitcoin
from custody.errors import NotPossible
from custody.model import client_account, custody_account
from custody.payout_model import Payout, PayoutState
from custody.signer.testing import local_signer, rules_for
from custody.venues import store
from custody.venues.addresses import address_bytes, approve_address, draft_address, propose_address
from custody.venues.deposits import send_to_venue
from custody.venues.model import (
    Place,
    VenueDepositState,
    VenueWithdrawal,
    WithdrawalRequest,
    WithdrawalState,
    WorkReport,
)
from custody.venues.withdrawals import approval_bytes, approve_withdrawal, request_withdrawal
from custody.venues.worker import advance_venue_transfers
from kernel.clock import ManualClock
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.model import CLIENT
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair
from tests.custody.bitcoin.spend_world import BOOK, BTC, PAYEES, START, SpendWorld, found_desk
from venues.treasury_testing import ScriptedTreasury

PLACE = Place("sim", "main")
NETWORK = "BTC"
ADDRESS = PAYEES[1]
FEE = 5_000
HELD = 2 * BTC
ROUTE_OUT = "transit:btc-hot-sim/main"
ROUTE_IN = "transit:sim/main-btc-hot"


class CoinWorld(SpendWorld):
    """The Bitcoin desk with its own coins, and an account at a venue."""

    treasury: ScriptedTreasury

    async def balance(self, path: str) -> int:
        return (await self.books()).get(path, (0, 0, 0))[0]

    async def work(self) -> WorkReport:
        self.clock.advance(timedelta(seconds=10))
        return await advance_venue_transfers(
            self.engine, self.treasury, book=BOOK, holder="treasurer", clock=self.clock
        )

    async def back(self, amount: int, number: int) -> VenueWithdrawal:
        """Ask for a withdrawal and approve it."""
        request = WithdrawalRequest(
            client_ref=f"f-{number}",
            place=PLACE,
            wallet=HOT,
            asset="BTC",
            amount=amount,
            requested_by="dan",
        )
        (offered,) = await self.treasury.networks("BTC")
        item = await self.run(
            lambda c: request_withdrawal(
                c, request, offered=offered, book=BOOK, now=self.clock.now()
            )
        )
        signature = operator_keypair("ben").sign(approval_bytes(item))
        return await self.run(
            lambda c: approve_withdrawal(
                c, item.id, by="ben", signature=signature, now=self.clock.now()
            )
        )

    async def now_of(self, item: VenueWithdrawal) -> VenueWithdrawal:
        return await self.run(lambda conn: store.get_withdrawal(conn, item.id))


async def register(conn: AsyncConnection, world: CoinWorld) -> None:
    """Register where the venue takes BTC, by ada and ben, and open what it holds."""
    now, ada, ben = world.clock.now(), operator_keypair("ada"), operator_keypair("ben")
    draft = await draft_address(
        conn,
        place=PLACE,
        asset="BTC",
        network=NETWORK,
        chain=CHAIN,
        address=ADDRESS,
        by="ada",
        now=now,
    )
    assert draft.destination is not None
    item = await propose_address(
        conn,
        place=PLACE,
        asset="BTC",
        network=NETWORK,
        chain=CHAIN,
        address=ADDRESS,
        by="ada",
        now=now,
        signature=ada.sign(address_bytes(draft.address)),
        destination_signature=ada.sign(destination_bytes(draft.destination)),
    )
    there = await get_destination(conn, item.destination_id)
    await approve_address(
        conn,
        item.id,
        by="ben",
        signature=ben.sign(address_bytes(item)),
        destination_signature=ben.sign(destination_bytes(there)),
        now=now,
    )
    keys = {(PLACE.path, "BTC"), ("equity:opening", "BTC"), ("equity:capital", "BTC")}
    await ensure_accounts(conn, BOOK, keys, now=now)
    opening = transfer(
        derive_id(now, "venue"), PLACE.path, "equity:opening", HELD, "BTC", code="test"
    )
    require_applied(await post(conn, BOOK, [opening], now=now))


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[CoinWorld]:
    clock, founding, node = ManualClock(START), with_bitcoin(demo_founding()), ScriptedBitcoin()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with local_signer(tmp_path, rules, clock=clock) as vault:
        made = CoinWorld(engine, node, vault, clock, vault=vault, start_height=1)
        made.treasury = ScriptedTreasury(clock)
        made.treasury.offer("BTC", NETWORK, ADDRESS, fee=FEE)
        made.treasury.balances = {"BTC": HELD}
        await made.run(lambda conn: found_desk(conn, made, founding))
        await made.run(lambda conn: register(conn, made))
        await made.mine(3)
        yield made


async def ask(world: CoinWorld, source: str = HOT) -> Payout:
    payout, _ = await send_to_venue(
        world.engine,
        world.treasury,
        client_ref="t-1",
        source_wallet=source,
        asset="BTC",
        amount=BTC,
        requested_by="dan",
        book=BOOK,
        clock=world.clock,
    )
    return payout


async def send(world: CoinWorld) -> tuple[PayoutState, str]:
    payout = await ask(world)
    await world.approve(payout)
    report = await world.advance()
    assert report.waiting == {}
    await world.mine()
    payout = await world.get(payout)
    return payout.state, payout.tx_hash or ""


async def come_back(world: CoinWorld, amount: int) -> None:
    """Have the venue pay *amount*, its fee included, and let it arrive."""
    item = await world.back(amount, 7)
    await world.work()
    paid = world.node.pay((item.address, amount - FEE))
    world.treasury.pay("w-1", paid.tx_id)
    await world.work()
    world.node.mine(paid)
    await world.mine(3)
    await world.credit()
    await world.work()
    assert (await world.now_of(item)).state is WithdrawalState.ARRIVED


async def test_bitcoin_goes_to_the_venue_and_is_in_transit_until_both_sides_show_it(
    world: CoinWorld,
) -> None:
    # What came back from the venue is what goes there again: the desk's coins, to be spent like any.
    await come_back(world, 3 * BTC // 2)
    held = HELD - 3 * BTC // 2
    before = await world.balance("custody:btc-hot")
    state, tx = await send(world)
    assert state is PayoutState.MINED
    assert await world.balance(ROUTE_OUT) == BTC
    world.treasury.show_deposit(tx, "BTC", NETWORK, BTC)
    await world.work()
    assert await world.balance(PLACE.path) == held

    await world.mine(3)
    await world.confirm()
    await world.work()
    (row,) = await world.run(lambda conn: store.list_deposits(conn, book=BOOK))
    assert row.state is VenueDepositState.CREDITED
    assert await world.balance(ROUTE_OUT) == 0
    assert await world.balance(PLACE.path) == held + BTC == world.treasury.balances["BTC"]
    spent = before - await world.balance("custody:btc-hot")
    assert spent == BTC + await world.balance("expense:network-fee")


async def test_two_equal_withdrawals_paid_by_one_transaction_are_two_arrivals_and_nobodys_deposit(
    world: CoinWorld,
) -> None:
    before = await world.balance("custody:btc-hot")
    items = [await world.back(BTC // 2, number) for number in (1, 2)]
    report = await world.work()
    net = BTC // 2 - FEE
    assert set(report.moved.values()) == {WithdrawalState.DEBITED}, (report, items)
    assert await world.balance(ROUTE_IN) == 2 * net
    one = world.node.pay(*((item.address, net) for item in items))
    for ref in ("w-1", "w-2"):
        world.treasury.pay(ref, one.tx_id)
    await world.work()
    world.node.mine(one)
    await world.mine(3)
    await world.credit()
    await world.work()

    found = [await world.now_of(item) for item in items]
    assert {item.state for item in found} == {WithdrawalState.ARRIVED}
    assert len({item.arrival_id for item in found}) == 2
    assert await world.balance(ROUTE_IN) == 0
    assert await world.balance("custody:btc-hot") == before + 2 * net
    assert await world.balance(PLACE.path) == HELD - BTC == world.treasury.balances["BTC"]


async def have_clients_coins(conn: AsyncConnection, world: CoinWorld) -> None:
    """Book coins of acme's in the pool, enough for what is asked of it."""
    now, keys = world.clock.now(), (custody_account(POOL), client_account("acme"))
    owners = {keys[0]: CLIENT}
    await ensure_accounts(conn, BOOK, {(key, "BTC") for key in keys}, owners=owners, now=now)
    came = transfer(derive_id(now, "pool"), *keys, 2 * BTC, "BTC", code="test")
    require_applied(await post(conn, BOOK, [came], now=now))


async def test_clients_coins_go_to_no_venue_and_none_comes_to_their_wallets(
    world: CoinWorld,
) -> None:
    await world.run(lambda conn: have_clients_coins(conn, world))
    with pytest.raises(NotPossible, match="owned by client"):
        await ask(world, source=POOL)
    request = WithdrawalRequest(
        client_ref="f-9",
        place=PLACE,
        wallet=POOL,
        asset="BTC",
        amount=BTC,
        fee_max=FEE,
        requested_by="dan",
    )
    with pytest.raises(NotPossible, match="the desk's coins do not go there"):
        await world.run(
            lambda c: request_withdrawal(c, request, offered=None, book=BOOK, now=world.clock.now())
        )
