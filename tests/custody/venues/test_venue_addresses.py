"""Where coins for a venue may go: two people say it, the venue confirms it, and nothing else is paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.control_messages import ScopeKind
from custody.errors import NotOurs, NotPossible
from custody.freezes import Scope, close_automatically
from custody.payout_model import OWN_PARTY, DestinationKind, PayoutState
from custody.policy_model import VENUE, Action, PolicyRule
from custody.testing import allow, set_policy
from custody.venues import store
from custody.venues.addresses import revoke_address, verify_address
from custody.venues.model import AddressState, VenueDepositState, WithdrawalState
from custody.venues.tables import venue_withdrawal_approval
from custody.venues.withdrawals import approval_bytes, approve_withdrawal
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.custody.payout_world import ETH, PAYEE
from tests.custody.venues.transfer_world import (
    ADDRESS,
    ETHEREUM,
    HELD,
    OTHER_ADDRESS,
    PLACE,
    TransferWorld,
    make_transfer_world,
)
from venues.treasury_model import VenueAddress

W = WithdrawalState


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path) as made:
        yield made


async def test_one_person_registers_nothing(world: TransferWorld) -> None:
    proposed = await world.propose("USDT")
    with pytest.raises(Refused, match="proposed this address"):
        await world.approve_address(proposed, by="ada")
    with pytest.raises(NotPossible, match="is registered"):
        await world.send(asset="USDT", amount=1)


async def test_an_address_that_needs_a_tag_is_not_registered(world: TransferWorld) -> None:
    with pytest.raises(NotPossible, match="no transaction on evm carries"):
        await world.register("USDT", tag="12345")


async def test_one_address_serves_several_assets_of_its_chain(world: TransferWorld) -> None:
    ether = (await world.desk.run(lambda conn: store.list_addresses(conn, place=PLACE)))[0]
    token = await world.register("USDT")
    assert (token.state, token.destination_id) == (AddressState.ACTIVE, ether.destination_id)


async def test_a_changed_address_refuses_the_request_and_is_told(world: TransferWorld) -> None:
    world.treasury.addresses["ETH", ETHEREUM] = VenueAddress(OTHER_ADDRESS)
    with pytest.raises(NotPossible, match=f"names {OTHER_ADDRESS}"):
        await world.send()

    (item,) = await world.desk.run(lambda conn: store.list_addresses(conn, place=PLACE))
    assert item.state is AddressState.CHANGED
    history = await world.desk.run(lambda conn: list_history(conn, "venue_address", item.id))
    assert history[-1].name == "VenueAddressChanged"
    with pytest.raises(NotPossible, match="is registered"):
        await world.send()


@pytest.mark.parametrize("answer", [VenueAddress(OTHER_ADDRESS), VenueAddress(ADDRESS, "tag")])
async def test_an_address_that_changes_after_the_request_is_never_paid(
    world: TransferWorld, answer: VenueAddress
) -> None:
    payout, _ = await world.send()
    await world.desk.approve(payout)
    world.treasury.addresses["ETH", ETHEREUM] = answer
    report = await world.work(world.policy.verified_for.total_seconds())
    for _ in range(3):
        await world.desk.advance()

    waiting = await world.desk.get(payout)
    assert waiting.state is PayoutState.APPROVED
    assert "is not a registered address" in waiting.waiting_for
    assert [alarm.reason for alarm in report.alarms if "names" in alarm.reason]


async def test_a_word_of_the_venue_that_is_too_old_stops_the_payout_until_it_is_asked_again(
    world: TransferWorld,
) -> None:
    payout, _ = await world.send()
    await world.desk.approve(payout)
    world.desk.clock.advance(world.policy.verified_for + timedelta(minutes=1))
    await world.desk.advance()
    assert "has not confirmed" in (await world.desk.get(payout)).waiting_for

    report = await world.work()
    assert len(report.verified) == 1
    mined = await world.mine_payout(payout)
    assert mined.destination == ADDRESS


async def test_a_revoked_address_is_not_paid(world: TransferWorld) -> None:
    payout, row = await world.send()
    await world.desk.approve(payout)
    await world.desk.run(
        lambda conn: revoke_address(
            conn, row.address_id, by="ben", reason="closed", now=world.desk.clock.now()
        )
    )
    for _ in range(3):
        await world.desk.advance()
    assert (await world.desk.get(payout)).state is PayoutState.APPROVED


async def test_coins_for_a_venue_go_nowhere_but_to_its_registered_address(
    world: TransferWorld,
) -> None:
    # A vault of ours, say: two people have allowed it, and not as the venue's.
    now = world.desk.clock.now()
    await world.desk.run(lambda conn: allow(conn, OWN_PARTY, OTHER_ADDRESS, now=now))
    for elsewhere in (OTHER_ADDRESS, PAYEE):
        with pytest.raises(NotPossible, match="is not where sim/main takes ETH"):
            await world.desk.request(
                claim=PLACE.claim, source_wallet="house-hot", destination=elsewhere
            )


async def test_a_payout_that_somebody_asked_for_by_hand_is_followed_like_any_other(
    world: TransferWorld,
) -> None:
    payout = await world.desk.request(
        claim=PLACE.claim, source_wallet="house-hot", destination=ADDRESS
    )
    await world.work()
    assert (await world.outward(payout)).state is VenueDepositState.OPEN


async def test_the_registered_address_is_not_a_destination_of_any_client(
    world: TransferWorld,
) -> None:
    with pytest.raises(NotPossible, match="is not an allowed destination of acme"):
        await world.desk.request(destination=ADDRESS)


async def test_the_venues_word_is_asked_of_its_own_account_only(world: TransferWorld) -> None:
    (item,) = await world.desk.run(lambda conn: store.list_addresses(conn, place=PLACE))
    world.treasury.account = "other"
    with pytest.raises(NotPossible, match="is of sim/main"):
        await verify_address(world.desk.engine, world.treasury, item.id, clock=world.desk.clock)


async def test_a_rule_for_moves_between_our_wallets_lets_nothing_go_to_a_venue(
    world: TransferWorld,
) -> None:
    rules = (PolicyRule(claim="own", action=Action.APPROVE), PolicyRule(claim="client"))
    await world.desk.run(lambda c: set_policy(c, now=world.desk.clock.now(), rules=rules))
    payout, _ = await world.send()
    back = await world.request()
    assert payout.state is PayoutState.REJECTED
    assert back.state is W.REJECTED

    to_venues = (PolicyRule(claim=VENUE, destination=DestinationKind.VENUE, approvals=2),)
    await world.desk.run(lambda c: set_policy(c, now=world.desk.clock.now(), rules=to_venues))
    payout, _ = await world.send()
    back = await world.request()
    assert (payout.state, payout.approvals_required) == (PayoutState.PENDING_APPROVAL, 2)
    assert back.state is W.REJECTED


async def test_what_is_reserved_both_ways_counts_against_one_window(world: TransferWorld) -> None:
    rules = (PolicyRule(claim=VENUE, amount_max=5 * ETH, window_s=3_600),)
    await world.desk.run(lambda c: set_policy(c, now=world.desk.clock.now(), rules=rules))
    out, _ = await world.send(2 * ETH)
    back = await world.request(2 * ETH)
    beyond = await world.request(2 * ETH)
    more, _ = await world.send(2 * ETH)

    assert out.state is PayoutState.PENDING_APPROVAL
    assert back.state is W.PENDING_APPROVAL
    assert beyond.state is W.REJECTED
    assert more.state is PayoutState.REJECTED


async def test_a_withdrawal_comes_only_to_a_hot_address_of_the_wallet(world: TransferWorld) -> None:
    for elsewhere in (PAYEE, ADDRESS, world.desk.hot["client-pool"]):
        with pytest.raises((NotPossible, NotOurs), match="not a hot address"):
            await world.request(address=elsewhere)


async def test_who_asks_for_a_withdrawal_does_not_approve_it(world: TransferWorld) -> None:
    item = await world.request(requested_by="ben")
    with pytest.raises(Refused, match="cannot approve it"):
        await world.approve(item, by="ben")
    with pytest.raises(Refused, match="in none of the groups"):
        await world.approve(item, by="dan")


async def test_an_approval_of_another_amount_does_not_count(world: TransferWorld) -> None:
    small, large = await world.request(ETH), await world.request(20 * ETH)
    with pytest.raises(NotAuthorised, match="not of this"):
        await world.desk.run(
            lambda conn: approve_withdrawal(
                conn,
                large.id,
                by="ben",
                signature=operator_keypair("ben").sign(approval_bytes(small)),
                now=world.desk.clock.now(),
            )
        )


async def test_more_than_the_account_has_is_not_asked_for(world: TransferWorld) -> None:
    item = await world.request(HELD)
    assert item.state is W.REJECTED
    half = [await world.request(HELD // 2) for _ in range(3)]
    assert [i.state for i in half] == [W.PENDING_APPROVAL, W.REJECTED, W.REJECTED]


async def test_a_fee_above_what_is_allowed_is_not_asked_for(world: TransferWorld) -> None:
    with pytest.raises(NotPossible, match="more than the 0 allowed"):
        await world.request(fee_max=0)
    world.treasury.offers["ETH", ETHEREUM] = type(world.treasury.offers["ETH", ETHEREUM])(
        asset="ETH", network=ETHEREUM, fee=0, least=ETH, step=ETH, withdraws=True, deposits=True
    )
    with pytest.raises(BadInput, match="multiples"):
        await world.request(ETH + 1)


async def test_a_signature_that_does_not_hold_at_the_moment_of_sending_stops_it(
    world: TransferWorld, owner_engine: AsyncEngine
) -> None:
    item = await world.approved()
    # Who runs the desk may not write approvals; somebody with the database itself could.
    async with owner_engine.begin() as conn:
        await conn.execute(update(venue_withdrawal_approval).values(signature=b"\0" * 64))
    report = await world.work()
    assert "does not hold any more" in report.waiting[item.id]
    assert world.treasury.requests == []


async def test_a_frozen_asset_is_not_withdrawn(world: TransferWorld) -> None:
    item = await world.approved()
    await world.desk.run(
        lambda conn: close_automatically(
            conn,
            Scope(ScopeKind.ASSET, "ETH"),
            by="system:test",
            reason="test",
            now=world.desk.clock.now(),
        )
    )
    report = await world.work()
    assert "frozen" in report.waiting[item.id]
    assert world.treasury.requests == []
