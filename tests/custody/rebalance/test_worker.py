"""The job of rebalancing on a scripted chain: what it asks for, once, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.errors import NotPossible
from custody.payout_model import PayoutState
from custody.payouts import expire_payouts
from custody.policy_model import PolicyRule
from custody.rebalance import worker
from custody.rebalance.model import ProposalState, TransferKind
from custody.rebalance.proposals import (
    carried_out,
    dismiss,
    get_proposal,
    hand_over,
    list_proposals,
)
from custody.rebalance.rules import approve_rules, propose_rules, rules_bytes
from custody.reconciliation import reconcile_chain
from custody.signing_stops import find_signing_stop, list_stops, signing_allowed
from custody.testing import set_policy
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, World, make_world
from tests.custody.rebalance.treasury_world import DEFAULT_RULES, ETHER, Treasury, set_rules

USDT = 10**6


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@pytest.fixture
async def treasury(world: World) -> Treasury:
    return Treasury(world)


async def differences(world: World) -> dict[str, int]:
    compared = await reconcile_chain(world.engine, world.gateway, "evm", book=BOOK)
    return {f"{c.wallet} {c.asset}": c.difference for c in compared if c.difference}


async def test_a_gas_top_up_is_never_credited_to_the_client_whose_address_gets_it(
    treasury: Treasury,
) -> None:
    """As peatio special-cases by looking its own transaction ids up."""
    await set_rules(treasury.world)
    address = await treasury.client_address()
    await treasury.pay_in(address, 200 * USDT, token=True)

    asked = await treasury.turn()
    (top_up,) = await treasury.own_transfers()
    await treasury.carry_out()

    assert len(asked.requested) == 1
    assert (top_up.asset, top_up.destination, top_up.amount) == ("ETH", address, ETHER // 100)
    assert await treasury.held_at(address) == ETHER // 100
    assert await treasury.deposit_states() == ["credited"]  # the tokens, and nothing else
    books = await treasury.world.books()
    assert books["client:acme", "ETH"][0] == 10 * ETHER
    assert await differences(treasury.world) == {}


async def test_tokens_are_swept_once_the_address_can_pay_and_the_fee_is_posted(
    treasury: Treasury,
) -> None:
    await set_rules(treasury.world)
    address = await treasury.client_address()
    await treasury.pay_in(address, 200 * USDT, token=True)
    hot = treasury.world.hot["client-pool"]
    before = await treasury.held_at(hot, token=True)

    await treasury.turn()
    await treasury.carry_out()
    await treasury.next_window()
    await treasury.carry_out()

    kinds = [item.reason.partition(":")[0] for item in await treasury.own_transfers()]
    states = [item.state for item in await treasury.own_transfers()]
    assert kinds == ["top_up", "sweep"]
    assert states == [PayoutState.CONFIRMED, PayoutState.CONFIRMED]
    assert await treasury.held_at(address, token=True) == 0
    assert await treasury.held_at(hot, token=True) - before == 200 * USDT
    fees = sum(item.fee_paid or 0 for item in await treasury.own_transfers())
    assert fees > 0
    assert (await treasury.world.books())["expense:network-fee", "ETH"][0] == fees
    assert await differences(treasury.world) == {}


async def test_a_native_sweep_leaves_what_it_may_cost(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    address = await treasury.client_address()
    await treasury.pay_in(address, 3 * ETHER)

    await treasury.turn()
    (sweep,) = await treasury.own_transfers()
    await treasury.carry_out()

    assert sweep.amount == 3 * ETHER - ETHER // 100
    assert 0 < await treasury.held_at(address) < ETHER // 100
    assert (await treasury.next_window()).proposed == []
    assert await differences(treasury.world) == {}


async def test_a_window_is_planned_once_however_many_turns_it_has(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)

    first, second = await treasury.turn(), await treasury.turn()

    assert (first.planned, second.planned) == (True, False)
    assert len(await treasury.own_transfers()) == 1


async def test_two_workers_in_one_window_ask_for_each_sweep_once(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)

    async with asyncio.TaskGroup() as group:
        turns = [group.create_task(treasury.turn()) for _ in range(3)]

    assert sum(len(turn.result().proposed) for turn in turns) == 1
    assert len(await treasury.own_transfers()) == 1


async def test_a_sweep_that_waits_for_approval_is_not_asked_for_again(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)

    await treasury.turn()
    later = await treasury.next_window()

    assert (later.planned, later.proposed) == (True, [])
    assert len(await treasury.own_transfers()) == 1


async def test_what_nobody_approves_lapses_and_is_asked_for_anew(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)
    await treasury.turn()
    treasury.world.clock.advance(timedelta(hours=2))

    await treasury.world.run(lambda c: expire_payouts(c, book=BOOK, now=treasury.world.clock.now()))
    later = await treasury.next_window()

    assert len(later.requested) == 1
    states = [item.state for item in await treasury.own_transfers()]
    assert states == [PayoutState.EXPIRED, PayoutState.PENDING_APPROVAL]


class Crash(Exception):
    """The process is gone."""


async def test_killed_after_the_plan_and_before_any_request_each_is_asked_for_once(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_rules(treasury.world)
    for reference in ("one", "two"):
        address = await treasury.client_address(reference=reference)
        await treasury.pay_in(address, 3 * ETHER)

    with monkeypatch.context() as patched:

        async def crash(*_: object, **__: object) -> None:
            raise Crash

        patched.setattr(worker, "request_payout", crash)
        with pytest.raises(Crash):
            await treasury.turn()
    assert await treasury.own_transfers() == []

    again = await treasury.turn()

    assert (again.planned, len(again.requested)) == (False, 2)
    assert len(await treasury.own_transfers()) == 2


async def test_killed_between_the_request_and_its_commit_it_is_asked_for_once(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)
    real = worker.end_proposal

    with monkeypatch.context() as patched:

        async def crash(*_: object, **__: object) -> None:
            raise Crash

        patched.setattr(worker, "end_proposal", crash)
        with pytest.raises(Crash):
            await treasury.turn()
    assert worker.end_proposal is real
    assert await treasury.own_transfers() == []

    await treasury.turn()
    await treasury.turn()

    assert len(await treasury.own_transfers()) == 1


async def test_killed_after_the_approval_the_sweep_goes_on_as_the_one_payout_it_is(
    treasury: Treasury,
) -> None:
    await set_rules(treasury.world)
    address = await treasury.client_address()
    await treasury.pay_in(address, 3 * ETHER)
    await treasury.turn()
    await treasury.approve_all()

    await treasury.turn()
    await treasury.next_window()
    await treasury.carry_out()

    (only,) = await treasury.own_transfers()
    assert only.state is PayoutState.CONFIRMED
    assert await differences(treasury.world) == {}


async def test_what_compliance_or_nobody_owns_is_not_swept(treasury: Treasury) -> None:
    await set_rules(treasury.world)
    treasury.policy = type(treasury.policy).uniform(1_000)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)

    report = await treasury.turn()

    assert report.proposed == []


async def test_without_rules_nothing_is_planned(treasury: Treasury) -> None:
    report = await treasury.turn()

    assert (report.planned, report.waiting) == (False, "no rebalancing rules are in force")


async def test_a_proposal_whose_time_is_over_before_it_became_a_payout_lapses(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_rules(treasury.world)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)
    with monkeypatch.context() as patched:

        async def crash(*_: object, **__: object) -> None:
            raise Crash

        patched.setattr(worker, "request_payout", crash)
        with pytest.raises(Crash):
            await treasury.turn()
    treasury.world.clock.advance(timedelta(hours=2))

    report = await treasury.turn()

    assert (len(report.lapsed), len(report.requested)) == (1, 1)


async def test_without_a_policy_for_own_transfers_the_proposal_is_refused_with_the_reason(
    treasury: Treasury,
) -> None:
    from_nothing = {**DEFAULT_RULES, "sweeps": [DEFAULT_RULES["sweeps"][1]]}
    await set_rules(treasury.world, from_nothing)
    await treasury.pay_in(await treasury.client_address(), 3 * ETHER)
    await only_clients_are_paid(treasury.world)

    report = await treasury.turn()

    ((_, reason),) = report.refused.items()
    assert "policy" in reason
    assert [item.state for item in await treasury.own_transfers()] == [PayoutState.REJECTED]


async def only_clients_are_paid(world: World) -> None:
    await world.run(
        lambda conn: set_policy(conn, now=world.clock.now(), rules=(PolicyRule(claim="client"),))
    )


# The hot float's cap, and cold wallets.


def with_bands(*bands: dict[str, str]) -> dict[str, Any]:
    return {**DEFAULT_RULES, "sweeps": [], "bands": list(bands)}


HOUSE_HOT = {
    "wallet": "house-hot",
    "asset": "ETH",
    "tier": "hot",
    "minimum": "1",
    "target": "5",
    "maximum": "8",
    "cap": "15",
}
HOUSE_WARM = {
    "wallet": "house-settlement",
    "asset": "ETH",
    "tier": "warm",
    "minimum": "0",
    "target": "50",
    "maximum": "100",
}
HOUSE_COLD = {**HOUSE_WARM, "tier": "cold"}


async def test_a_hot_wallet_above_its_cap_signs_nothing_but_what_brings_it_below(
    treasury: Treasury,
) -> None:
    world = treasury.world
    await set_rules(world, with_bands(HOUSE_HOT, HOUSE_WARM))

    stopped = await world.run(lambda c: signing_allowed(c, "house-hot", "ETH"))
    own = await world.run(lambda c: signing_allowed(c, "house-hot", "ETH", own=True))
    other = await world.run(lambda c: signing_allowed(c, "client-pool", "ETH"))
    report = await treasury.turn()
    alarms = await world.run(list_stops)
    await treasury.carry_out()
    await treasury.next_window()

    assert (stopped, own, other) == (False, True, True)
    assert [a.name for a in report.alarms] == ["HotFloatAboveCap"]
    assert [(a.wallet, a.asset) for a in alarms] == [("house-hot", "ETH")]
    (drain,) = await treasury.own_transfers()
    assert (drain.amount, drain.parsed_claim.name) == (15 * ETHER, "house-settlement")
    assert await world.run(lambda c: find_signing_stop(c, "house-hot", "ETH")) == ""
    assert await world.run(list_stops) == []
    # The desk's opening funds lie there without a row; what differs is what the fee took, no more.
    assert await differences(world) == {}


async def test_out_of_a_cold_wallet_people_are_handed_what_to_sign(treasury: Treasury) -> None:
    world = treasury.world
    low = {**HOUSE_HOT, "minimum": "30", "target": "40", "maximum": "50", "cap": "60"}
    await set_rules(world, with_bands(low, HOUSE_COLD))
    await fund_cold(treasury)

    report = await treasury.turn()
    (waiting,) = await world.run(
        lambda c: list_proposals(c, book=BOOK, states=[ProposalState.PROPOSED])
    )
    paper = await world.run(lambda c: hand_over(c, waiting.id))

    assert report.requested == []
    assert (waiting.transfer.kind, waiting.transfer.by_hand) == (TransferKind.FILL, True)
    assert paper == {
        "proposal": str(waiting.id),
        "chain_id": 31337,
        "from": world.hot["house-settlement"],
        "to": world.hot["house-hot"],
        "value": str(20 * ETHER),
        "data": "0x",
        "pays": world.hot["house-hot"],
        "asset": "ETH",
        "amount": str(20 * ETHER),
    }
    assert (await treasury.next_window()).proposed == []

    done = await world.run(
        lambda c: carried_out(
            c, waiting.id, tx_hash="0x" + "ab" * 32, by="ada", now=world.clock.now()
        )
    )

    assert done.state is ProposalState.CARRIED_OUT
    with pytest.raises(NotPossible):
        await world.run(
            lambda c: dismiss(c, waiting.id, reason="late", by="ada", now=world.clock.now())
        )
    assert (await world.run(lambda c: get_proposal(c, waiting.id))).detail == "0x" + "ab" * 32


async def fund_cold(treasury: Treasury) -> None:
    world = treasury.world
    world.gateway.fund(world.hot["house-settlement"], 100 * ETHER)

    async def work(conn: Any) -> None:
        now = world.clock.now()
        keys = [("custody:house-settlement", "ETH"), ("equity:capital", "ETH")]
        await ensure_accounts(conn, BOOK, keys, now=now)
        debit, credit = (path for path, _ in keys)
        move = transfer(
            derive_id(now, "cold"), debit, credit, 100 * ETHER, "ETH", code="test.opening"
        )
        require_applied(await post(conn, BOOK, [move], now=now))

    await world.run(work)


# Rules under four eyes.


async def test_whoever_proposes_rules_cannot_put_them_in_force(treasury: Treasury) -> None:
    world = treasury.world
    text = '{"sweeps": [{"wallet": "client-pool", "asset": "ETH", "minimum": "1", "fee_max": "1"}]}'
    row = await world.run(
        lambda c: propose_rules(c, text, chains=["evm"], by="ada", now=world.clock.now())
    )

    async def approve(by: str, key: str) -> Any:
        signature = operator_keypair(key).sign(rules_bytes(row))
        return await world.run(
            lambda c: approve_rules(
                c, row.rules.version, by=by, signature=signature, now=world.clock.now()
            )
        )

    with pytest.raises(Refused, match="ada proposed these rules"):
        await approve("ada", "ada")
    with pytest.raises(NotAuthorised, match="dan is not"):
        await approve("dan", "dan")
    with pytest.raises(NotAuthorised, match="signature"):
        await approve("ben", "cleo")
    assert (await approve("ben", "ben")).state == "active"
    with pytest.raises(NotPossible, match="active already"):
        await approve("ben", "ben")


async def test_a_native_sweep_that_may_cost_more_than_it_brings_is_refused(
    treasury: Treasury,
) -> None:
    text = (
        '{"sweeps": [{"wallet": "client-pool", "asset": "ETH", "minimum": "0.1", "fee_max": "1"}]}'
    )
    with pytest.raises(BadInput, match="may cost"):
        await treasury.world.run(
            lambda c: propose_rules(
                c, text, chains=["evm"], by="ada", now=treasury.world.clock.now()
            )
        )
