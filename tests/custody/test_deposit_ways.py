"""Deposits off the straight road, and the failures that others have paid for, by name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import BlockGone, DerivationDisagrees
from chain.model import Block, BlockContents, WatchList
from chain.received import share
from chain.testing import ScriptedGateway, ScriptedTransaction
from custody import quarantine
from custody.addresses import WatchListReader, assign_address, watch_list
from custody.arrivals import Token
from custody.compliance import people
from custody.deposit_model import DepositState, PendingState
from custody.errors import NotPossible, UnknownRow
from custody.model import AddressPurpose
from custody.pending import (
    DROPPED_AFTER,
    PoolReport,
    count_pending,
    explain_pending,
    list_pending,
    watch_pool,
)
from custody.policy import ConfirmationPolicy, Requirement, Rule, content_of, from_content
from custody.policy_versions import explain_decision, get_policy_version, list_policy_versions
from kernel.money import Asset
from registry.errors import NotAuthorised
from registry.model import ChainAsset
from registry.testing import TOKEN, change, operator_keypair
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, OTHER, STRANGER, House


class LyingGateway(ScriptedGateway):
    """A chain whose token moves less than it logs, and whose pool can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[tuple[str, str | None], int] = {}
        self.shows: set[str] = set()

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        return await super().contents(
            block, WatchList(watch.addresses, watch.contracts | self.shows)
        )

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        found = await super().balance(address, contract, at=at)
        return max(0, found - self.losses.get((address, contract), 0))

    def wait(self, *transactions: ScriptedTransaction) -> None:
        """Put transactions into the pool."""
        self._pool.update({item.hash: item for item in transactions})


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    return await House(engine, gateway=LyingGateway()).open()


def lying(house: House) -> LyingGateway:
    assert isinstance(house.gateway, LyingGateway)
    return house.gateway


# What really arrived.


async def test_a_token_that_takes_a_fee_is_posted_as_received_and_to_nobody(house: House) -> None:
    """The log says 100 and the balance 97: a client credited with 100 would own three of others."""
    house.proves = True
    lying(house).losses[house.acme, TOKEN] = 3
    house.mine(house.pay_token((house.acme, 100)), empty_after=2)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (deposit.state, deposit.received) == (DepositState.UNATTRIBUTED, 97)
    assert deposit.reason == "100 was logged and 97 arrived"
    assert await house.balances() == {
        "custody:client-pool USDT": (97, 0),
        "suspense:unattributed:evm USDT": (97, 0),
    }
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert await house.balances() == {}


async def test_a_token_that_logs_and_moves_nothing_credits_nobody(house: House) -> None:
    """The fake deposit of 2018: the event is there, the status is 1, and nothing moved."""
    house.proves = True
    lying(house).losses[house.acme, TOKEN] = 100
    house.mine(house.pay_token((house.acme, 100)), empty_after=2)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (deposit.state, deposit.received) == (DepositState.QUARANTINED, 0)
    assert await house.balances() == {}
    assert await house.open_holds() == []
    with pytest.raises(NotPossible, match="nothing to let in"):
        await adopt(house)


async def test_what_arrived_in_full_is_credited_also_beside_a_sweep(house: House) -> None:
    house.proves = True
    house.mine(house.pay_token((house.acme, 100), (house.acme, 50)))
    house.mine(
        house.pay_token((house.acme, 7)),
        house.pay_token((house.settlement, 30), sender=house.acme),
        empty_after=2,
    )
    await house.catch_up()

    assert [str(d.state) for d in await house.deposits()] == ["credited"] * 3
    assert {d.received for d in await house.deposits()} == {100, 50, 7}


async def test_without_the_state_of_its_block_a_token_waits(house: House) -> None:
    class Pruned(LyingGateway):
        async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
            raise BlockGone("pruned")

    house.proves = True
    house.gateway.__class__ = Pruned
    house.mine(house.pay_token((house.acme, 100)), house.pay(house.acme, 5), empty_after=2)
    await house.catch_up()

    by_asset = {d.asset: d for d in await house.deposits()}
    assert by_asset["ETH"].state is DepositState.CREDITED
    assert by_asset["USDT"].state is DepositState.CONFIRMED
    assert "no longer the state" in by_asset["USDT"].waiting_for


@pytest.mark.parametrize(
    ("claimed", "arrived", "shares"),
    [
        ([5, 3], 8, [5, 3]),
        ([5, 3], 6, [5, 1]),
        ([5, 3], 0, [0, 0]),
        ([5, 3], -2, [0, 0]),
        ([5, 3], 9, [5, 3]),
    ],
)
def test_what_arrived_is_shared_among_what_was_logged(
    claimed: list[int], arrived: int, shares: list[int]
) -> None:
    assert share(claimed, arrived) == shares


# Out of quarantine.


async def fake_paid_in(house: House) -> Any:
    lying(house).shows = {FAKE_TOKEN}
    house.mine(house.pay_token((house.acme, 5), contract=FAKE_TOKEN), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    assert deposit.state is DepositState.QUARANTINED
    return deposit


async def adopt(house: House, *by: str) -> Any:
    (deposit,) = await house.deposits()
    payload = people.deposit_bytes(people.ADOPT_VERB, deposit, "known now")
    signatures = {code: operator_keypair(code).sign(payload) for code in by or ("ben", "cleo")}
    return await house.do(
        lambda conn: quarantine.adopt(
            conn, deposit.id, signatures=signatures, reason="known now", book=BOOK, now=house.now
        )
    )


async def test_a_fake_token_of_the_right_name_is_quarantined_until_two_let_it_in(
    house: House,
) -> None:
    await fake_paid_in(house)
    assert await house.balances() == {}
    with pytest.raises(NotPossible, match="still not to be believed"):
        await adopt(house)

    await house.do(lambda conn: change(conn, Asset("FAKE", 6), now=house.now))
    token = ChainAsset("evm:FAKE", "evm", FAKE_TOKEN, 6, "FAKE")
    await house.do(lambda conn: change(conn, token, now=house.now))
    with pytest.raises(NotAuthorised):
        await adopt(house, "ben")
    adopted = await adopt(house)
    assert (adopted.state, adopted.asset) == (DepositState.INCLUDED, "FAKE")
    await house.advance()

    assert await house.balances() == {
        "custody:client-pool FAKE": (5, 0),
        "client:acme FAKE": (5, 0),
    }
    assert (await house.case(adopted.id)).state == "cleared"


async def test_what_is_dismissed_stays_out_and_says_why(house: House) -> None:
    deposit = await fake_paid_in(house)
    payload = people.deposit_bytes(people.DISMISS_VERB, deposit, "forged")
    signatures = {"ben": operator_keypair("ben").sign(payload)}

    async def dismiss(conn: AsyncConnection) -> Any:
        return await quarantine.dismiss(
            conn, deposit.id, signatures=signatures, reason="forged", now=house.now
        )

    after = await house.do(dismiss)
    assert (after.state, after.reason) == (DepositState.DISMISSED, "forged")
    with pytest.raises(NotPossible, match="dismissed already"):
        await house.do(dismiss)
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert await house.states() == ["orphaned"]


# The pool.


async def look(house: House) -> PoolReport:
    watch = await house.do(lambda conn: watch_list(conn, "evm"))
    return await watch_pool(house.engine, house.gateway, "evm", watch, now=house.now)


async def pending(house: House) -> list[str]:
    return [str(item.state) for item in await house.do(list_pending)]


async def test_what_is_seen_in_a_pool_is_never_posted(house: House) -> None:
    waiting = house.pay(house.acme, ETHER)
    lying(house).wait(waiting)

    assert await look(house) == PoolReport(seen=1)
    assert await look(house) == PoolReport()
    (counted,) = await house.do(lambda conn: count_pending(conn, "evm"))
    assert (counted.state, counted.contract, counted.count, counted.amount) == (
        *(PendingState.SEEN, None, 1),
        ETHER,
    )
    assert await house.balances() == {}
    assert await house.deposits() == []

    house.mine(waiting)
    await house.follow()
    (item,) = await house.do(list_pending)
    assert item.state is PendingState.INCLUDED
    house.gateway.reorg(1, [[], []])
    await house.follow()
    assert await pending(house) == ["seen"]
    told = await house.do(lambda conn: explain_pending(conn, item.id))
    assert [event.name for event in told] == ["ArrivalSeen", "ArrivalIncluded", "ArrivalSeen"]


async def test_a_payment_that_its_sender_replaced_is_not_waited_for(house: House) -> None:
    """The wallet that took an unconfirmed payment for good: its sender spent the nonce elsewhere."""
    waiting = house.pay(house.acme, ETHER, nonce=0)
    lying(house).wait(waiting)
    await look(house)

    lying(house).drop(waiting.hash)
    house.mine(house.pay(OTHER, 1, nonce=0))
    await house.follow()

    assert await look(house) == PoolReport(replaced=1)
    assert await pending(house) == ["replaced"]
    assert await house.balances() == {}


async def test_a_payment_that_every_pool_forgot_is_dropped_and_may_come_back(house: House) -> None:
    waiting = house.pay(house.acme, ETHER, nonce=3)
    lying(house).wait(waiting)
    await look(house)
    lying(house).drop(waiting.hash)

    assert await look(house) == PoolReport()
    house.clock.advance(DROPPED_AFTER + timedelta(seconds=1))
    assert await look(house) == PoolReport(dropped=1)
    house.mine(waiting)
    await house.follow()
    assert await pending(house) == ["included"]


async def test_transfers_of_nothing_are_seen_by_nobody(house: House) -> None:
    """Address poisoning sends zero tokens from a look-alike: there is no deposit, and no history."""
    nothing = house.pay_token((house.acme, 0))
    lying(house).wait(nothing)
    assert await look(house) == PoolReport()
    house.mine(nothing, house.pay(house.acme, 0), empty_after=2)
    await house.catch_up()

    assert await house.deposits() == []
    assert await house.do(list_pending) == []


async def test_an_address_takes_any_number_of_deposits(house: House) -> None:
    for amount in (1, 2, 3):
        house.mine(house.pay(house.acme, amount), house.pay_token((house.acme, amount)))
    house.mine(house.pay(house.acme, 4), empty_after=2)
    await house.catch_up()

    assert (await house.balances())["client:acme ETH"] == (10, 0)
    assert (await house.balances())["client:acme USDT"] == (6, 0)


# Policy, kept.


async def test_months_later_it_is_known_which_rule_let_a_deposit_through(house: House) -> None:
    house.policy = ConfirmationPolicy(3, (Rule(Requirement(5), asset="USDT"), Rule(Requirement(3))))
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    house.policy = ConfirmationPolicy.uniform(9, version=4)
    house.mine(house.pay(house.acme, 1), empty_after=9)
    await house.catch_up()

    lines = await house.do(lambda conn: explain_decision(conn, deposit))
    kept = await house.do(lambda conn: get_policy_version(conn, 3))
    assert (deposit.policy_version, deposit.policy_rule) == (3, 2)
    assert lines[0].startswith(f"content {kept.content_hash}")
    assert lines[1:4] == [
        "policy version 3",
        "rule 1 does not match: asset is ETH, not USDT",
        "rule 2 matches: 3 blocks",
    ]
    versions = await house.do(list_policy_versions)
    assert [item.policy.version for item in versions] == [3, 4]
    with pytest.raises(UnknownRow):
        await house.do(lambda conn: get_policy_version(conn, 5))


async def test_a_changed_policy_under_an_old_number_decides_nothing(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    house.policy = ConfirmationPolicy.uniform(1, version=house.policy.version)
    house.mine(house.pay(house.acme, 1))
    await house.follow()

    with pytest.raises(NotPossible, match="has decided with other rules"):
        await house.advance()
    assert sorted(await house.states()) == ["credited", "included"]


def test_a_policy_is_read_back_as_it_was_written() -> None:
    policy = ConfirmationPolicy(
        2,
        (
            Rule(Requirement(4, finalized=True), "evm", "USDT", 10**30, "known"),
            Rule(Requirement(6)),
        ),
        {"evm:USDT": 7},
    )

    assert from_content(content_of(policy)) == policy


# Decimals.


@settings(max_examples=200, suppress_health_check=[HealthCheck.differing_executors])
@given(st.integers(0, 10**40), st.integers(0, 24), st.integers(0, 24))
def test_an_amount_is_floored_and_its_rest_is_kept(amount: int, decimals: int, scale: int) -> None:
    token = Token(ChainAsset("evm:X", "evm", TOKEN, decimals, "X"), Asset("X", scale))

    units, rest = token.split(amount)

    assert token.on_the_chain(units, rest) == amount
    assert 0 <= rest < 10 ** max(0, decimals - scale) or (rest == 0 and scale >= decimals)


# Addresses.


async def test_a_client_has_one_deposit_address_for_each_asset_of_a_chain(house: House) -> None:
    async def ask(asset: str, party: str = "acme") -> str:
        async def work(conn: AsyncConnection) -> str:
            found = await assign_address(
                conn,
                "client-pool",
                purpose=AddressPurpose.DEPOSIT,
                party=party,
                chain_asset=asset,
                now=house.now,
            )
            return found.address

        return await house.do(work)

    first, other, again, birch = (
        await ask("evm:USDT"),
        await ask("evm:ETH"),
        await ask("evm:USDT"),
        await ask("evm:USDT", "birch"),
    )

    assert first == again
    assert len({first, other, birch}) == 3
    with pytest.raises(NotPossible, match="not registered"):
        await ask("evm:NONE")


async def test_a_key_that_is_not_the_one_the_wallet_began_with_hands_out_nothing(
    house: House, owner_engine: AsyncEngine
) -> None:
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE custody.wallet_key DISABLE TRIGGER USER"))
        began = "UPDATE custody.wallet_key SET first_address = :other WHERE wallet = 'client-pool'"
        await conn.execute(text(began), {"other": STRANGER})

    with pytest.raises(DerivationDisagrees, match="client-pool began with"):
        await house.assign("client-pool", AddressPurpose.DEPOSIT, "acme")


async def test_a_watch_list_that_was_read_before_is_read_on(house: House) -> None:
    reader = WatchListReader()
    before = await house.do(lambda conn: reader.read(conn, "evm"))
    same = await house.do(lambda conn: reader.read(conn, "evm"))
    more = await house.assign("client-pool", AddressPurpose.DEPOSIT, "acme")
    after = await house.do(lambda conn: reader.read(conn, "evm"))

    assert same is before
    assert after.addresses == before.addresses | {more}
    assert after == await house.do(lambda conn: watch_list(conn, "evm"))


async def test_what_is_finer_than_the_asset_is_floored_and_whole_units_of_it_are_dust(
    house: House, owner_engine: AsyncEngine
) -> None:
    """A token of eight places on a chain is an asset of six places in the books."""
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE registry.chain_asset DISABLE TRIGGER USER"))
        await conn.execute(
            text("UPDATE registry.chain_asset SET decimals = 8 WHERE code = 'evm:USDT'")
        )
    first, second = house.pay_token((house.acme, 160)), house.pay_token((house.birch, 250))
    house.mine(first)
    house.mine(second, house.pay_token((house.acme, 70)), empty_after=2)
    await house.catch_up()

    assert await house.balances() == {
        "custody:client-pool USDT": (4, 0),
        "client:acme USDT": (1, 0),
        "client:birch USDT": (2, 0),
        "suspense:dust USDT": (1, 0),
    }
    house.gateway.reorg(4, [[first], [], [], [], []])
    await house.catch_up()
    assert await house.balances() == {
        "custody:client-pool USDT": (1, 0),
        "client:acme USDT": (1, 0),
    }
