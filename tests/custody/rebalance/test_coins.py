"""Bands and consolidations on Bitcoin: what is asked for, what it leaves, and what stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.addresses import assign_address
from custody.bitcoin.coins import list_coins, sum_unspent
from custody.bitcoin.consolidation import is_consolidation, plan_amount
from custody.bitcoin.testing import CHAIN, HOT, POOL, SETTLEMENT
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutState
from custody.payouts import list_payouts
from custody.rebalance.model import RebalanceReport
from custody.rebalance.planning import ABOVE_CAP, BELOW_MINIMUM
from custody.rebalance.rules import approve_rules, propose_rules, rules_bytes
from custody.rebalance.worker import advance_coins, preview_coins
from custody.signing_stops import list_stops
from kernel.errors import BadInput
from registry.testing import operator_keypair
from tests.custody.bitcoin.spend_world import (
    BOOK,
    BTC,
    CAPITAL,
    DEPOSITS,
    SpendWorld,
    make_spend_world,
)

SMALL, COUNT = 100_000, 15
CHEAP = 2_000
WINDOW = timedelta(minutes=10)
RULE = {"wallet": POOL, "asset": "BTC", "below": "0.002", "rate_max": 3_000, "coins_min": 10}


def band(wallet: str, tier: str, low: str, target: str, high: str, **more: str) -> dict[str, str]:
    amounts = {"minimum": low, "target": target, "maximum": high}
    return {"wallet": wallet, "asset": "BTC", "tier": tier, **amounts, **more}


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        made.node.rate = CHEAP
        yield made


async def set_rules(world: SpendWorld, **document: Any) -> None:
    text = json.dumps({"window_s": 600, "lifetime_s": 7200, **document})

    async def work(conn: AsyncConnection) -> None:
        now = world.clock.now()
        row = await propose_rules(conn, text, chains=[CHAIN, "evm"], by="ada", now=now)
        signature = operator_keypair("ben").sign(rules_bytes(row))
        await approve_rules(conn, row.rules.version, by="ben", signature=signature, now=now)

    await world.run(work)


async def turn(world: SpendWorld) -> RebalanceReport:
    return await advance_coins(world.engine, world.node, chain=CHAIN, book=BOOK, clock=world.clock)


async def next_window(world: SpendWorld) -> RebalanceReport:
    world.clock.advance(WINDOW)
    return await turn(world)


async def asked(world: SpendWorld) -> list[Payout]:
    found = await world.run(lambda conn: list_payouts(conn, book=BOOK))
    return [item for item in found if item.requested_by == "system:rebalance"]


async def carry_out(world: SpendWorld) -> None:
    waiting = [p for p in await asked(world) if p.state is PayoutState.PENDING_APPROVAL]
    await world.approve(*waiting)
    assert (await world.advance()).waiting == {}
    await world.mine(3)
    await world.confirm()


async def held(world: SpendWorld) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (wallet, _), amount in (await world.run(lambda c: sum_unspent(c, CHAIN))).items():
        found[wallet] += amount
    return found


async def small_coins(world: SpendWorld, count: int = COUNT, each: int = SMALL) -> None:
    world.node.mine(*(world.node.pay((world.acme, each + n)) for n in range(count)))
    await world.mine(3)
    await world.credit()


async def give_house(world: SpendWorld, amount: int = BTC // 2) -> None:
    """Let the house's hot wallet have coins, and its other wallet an address."""

    async def work(conn: AsyncConnection) -> str:
        now, hot = world.clock.now(), AddressPurpose.HOT
        await assign_address(conn, SETTLEMENT, purpose=hot, now=now)
        return (await assign_address(conn, HOT, purpose=hot, now=now)).address

    to = await world.run(work)
    await world.approved(
        client_ref="seed", claim=f"own:{HOT}", amount=amount, destination=to, requested_by="dan"
    )
    await world.advance()
    await world.mine(3)
    await world.confirm()


# Consolidation.


async def test_small_coins_become_one_in_a_cheap_window_and_only_the_fee_is_gone(
    world: SpendWorld,
) -> None:
    await small_coins(world)
    await set_rules(world, consolidations=[RULE])

    report = await turn(world)

    assert (len(report.requested), report.refused) == (1, {})
    (payout,) = await asked(world)
    assert is_consolidation(payout)
    assert (await turn(world)).requested == []
    await carry_out(world)
    one = await world.only()
    assert len(one.current.coins) == COUNT
    assert {coin.amount // 1_000 for coin in one.current.coins} == {SMALL // 1_000}
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    total = sum(DEPOSITS) + CAPITAL + sum(SMALL + n for n in range(COUNT))
    assert (await world.books())["custody:btc-pool"] == (total - one.current.fee, 0, 0)
    await world.assert_exact()
    # What is one coin now is not small any more: the next window leaves it.
    assert (await next_window(world)).requested == []


@pytest.mark.parametrize("rate", [3_001, None])
async def test_nothing_is_consolidated_while_blocks_are_dear_or_nobody_knows_their_price(
    world: SpendWorld, rate: int | None
) -> None:
    await small_coins(world)
    await set_rules(world, consolidations=[RULE])
    world.node.rate = rate
    assert (await turn(world)).proposed == []


async def test_fewer_small_coins_than_the_rule_says_stay_where_they_are(world: SpendWorld) -> None:
    await small_coins(world, count=9)
    await set_rules(world, consolidations=[RULE])
    assert (await turn(world)).proposed == []


async def test_a_consolidation_spends_no_more_coins_than_the_rule_says(world: SpendWorld) -> None:
    await small_coins(world)
    await set_rules(world, consolidations=[{**RULE, "inputs_max": 11}])
    await turn(world)
    await carry_out(world)
    assert len((await world.only()).current.coins) == 11


async def test_a_consolidation_under_way_is_not_asked_for_again(world: SpendWorld) -> None:
    await small_coins(world, count=40)
    await set_rules(world, consolidations=[{**RULE, "inputs_max": 12}])
    assert len((await turn(world)).requested) == 1
    assert (await next_window(world)).requested == []
    await carry_out(world)
    assert len((await next_window(world)).requested) == 1


async def test_coins_that_cost_what_they_hold_are_left_where_they_are(world: SpendWorld) -> None:
    """A stranger's dust never makes a consolidation dearer than it is worth."""
    await small_coins(world, count=30, each=200)
    await small_coins(world)
    await set_rules(world, consolidations=[RULE])
    await turn(world)
    await carry_out(world)
    spent = (await world.only()).current.coins
    assert len(spent) == COUNT
    assert min(coin.amount for coin in spent) >= SMALL


async def test_what_has_become_too_dear_waits_for_cheaper_blocks(world: SpendWorld) -> None:
    await small_coins(world)
    await set_rules(world, consolidations=[RULE])
    await turn(world)
    await world.approve(*await asked(world))
    world.node.rate = 5 * CHEAP
    assert list((await world.advance()).waiting.values())
    assert await world.spends() == []
    world.node.rate = CHEAP
    assert (await world.advance(after=timedelta(minutes=1))).waiting == {}
    assert len((await world.only()).current.coins) == COUNT


def test_a_consolidation_of_nothing_but_fees_is_none() -> None:
    arguments: dict[str, Any] = {"weight": 272, "rate": 1_000, "coins_min": 2, "inputs_max": 50}
    assert plan_amount([150] * 3, below=1_000, **arguments) == 0
    assert plan_amount([900] * 3, below=1_000, **arguments) > 0
    assert plan_amount([1_000] * 3, below=1_000, **arguments) == 0


# Bands.


async def test_a_wallet_above_its_band_is_drained_and_one_below_it_is_filled(
    world: SpendWorld,
) -> None:
    await give_house(world)
    warm = band(SETTLEMENT, "warm", "0", "0.1", "5")
    await set_rules(world, bands=[band(HOT, "hot", "0.1", "0.2", "0.3"), warm])

    report = await turn(world)

    assert (len(report.requested), report.refused, report.alarms) == (1, {}, [])
    await carry_out(world)
    there = await held(world)
    assert there[SETTLEMENT] == 3 * BTC // 10
    assert 0 < 2 * BTC // 10 - there[HOT] < 10_000
    await world.assert_exact()
    assert (await next_window(world)).proposed == []

    await set_rules(world, bands=[band(HOT, "hot", "0.3", "0.4", "0.5"), warm])
    await next_window(world)
    await carry_out(world)
    assert (await held(world))[HOT] == 4 * BTC // 10
    await world.assert_exact()


async def test_a_cold_wallet_fills_by_a_payout_whose_transaction_people_sign(
    world: SpendWorld,
) -> None:
    await give_house(world)
    cold = band(HOT, "cold", "0", "0.1", "5")
    await set_rules(world, bands=[band(SETTLEMENT, "hot", "0.1", "0.2", "0.3"), cold])
    assert len((await turn(world)).requested) == 1
    await world.approve(*await asked(world))
    # It has coins and waits for people: no process signs it.
    await world.advance()
    (seen,) = [item for item in await world.spends() if item.spend.wallet == HOT]
    assert not seen.signed
    assert {str(item.state) for item in seen.payouts} == {"allocated"}
    await world.assert_exact()


async def test_a_drain_that_waits_for_a_block_is_not_proposed_again(world: SpendWorld) -> None:
    await give_house(world)
    await small_coins(world, count=1)
    warm = band(SETTLEMENT, "warm", "0", "0", "5")
    await set_rules(world, bands=[band(HOT, "hot", "0.1", "0.2", "0.3"), warm])
    await turn(world)
    await world.approve(*await asked(world))
    await world.advance()
    report = await next_window(world)
    assert (report.proposed, report.alarms) == ([], [])


async def test_a_hot_wallet_above_its_cap_pays_nobody_else_until_it_is_below(
    world: SpendWorld,
) -> None:
    capped = band(POOL, "hot", "0", "1", "2", cap="3")
    await set_rules(world, bands=[capped])
    report = await turn(world)
    assert ABOVE_CAP in {item.name for item in report.alarms}
    assert len(await world.run(list_stops)) == 1
    payout = await world.approved()
    await world.advance()
    assert (await world.get(payout)).state is PayoutState.APPROVED
    await set_rules(world, bands=[{**capped, "cap": "30"}])
    await world.advance(after=timedelta(minutes=5))
    assert (await world.get(payout)).state is PayoutState.SIGNED
    await next_window(world)
    assert await world.run(list_stops) == []


async def test_what_is_nowhere_to_be_had_is_an_alarm_and_clients_coins_never_fill_the_house(
    world: SpendWorld,
) -> None:
    await give_house(world)
    full = band(POOL, "warm", "0", "0", "100")
    await set_rules(world, bands=[band(HOT, "hot", "2", "3", "4"), full])
    report = await turn(world)
    assert report.proposed == []
    assert [item.name for item in report.alarms] == [BELOW_MINIMUM]


# The document.


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"sweeps": [{"wallet": POOL, "asset": "BTC", "minimum": "1", "fee_max": "0.1"}]},
            "nothing is swept",
        ),
        (
            {"consolidations": [{**RULE, "wallet": "client-pool", "asset": "ETH"}]},
            "has accounts",
        ),
        ({"consolidations": [RULE, RULE]}, "two rules of kind consolidation"),
        ({"consolidations": [{**RULE, "coins_min": 1}]}, "spends 2 to"),
        ({"consolidations": [{**RULE, "inputs_max": 9}]}, "spends 2 to"),
        ({"consolidations": [{**RULE, "rate_max": 0}]}, "at a rate of"),
        ({"consolidations": [{**RULE, "rates": 5}]}, "has the field 'rates'"),
    ],
)
async def test_a_rule_that_cannot_be_meant_is_refused(
    world: SpendWorld, document: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        await set_rules(world, **document)


async def test_a_preview_writes_nothing_and_gives_no_address_out(world: SpendWorld) -> None:
    await small_coins(world)
    await set_rules(world, consolidations=[RULE])
    made = await preview_coins(world.engine, world.node, chain=CHAIN, book=BOOK)
    assert [(str(t.kind), t.to_address) for t in made.transfers] == [("consolidate", "")]
    assert await asked(world) == []
    assert {coin.own for coin in await world.run(lambda c: list_coins(c, CHAIN))} == {False}
