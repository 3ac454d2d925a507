"""Payouts out of a wallet that nobody's process has the keys of, from request to finality."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import decode
from custody.addresses import assign_address
from custody.bitcoin.cold_spends import (
    export_spend,
    import_spend,
    inspect_part,
    list_waiting,
)
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.testing import CHAIN, HOT, POOL, with_bitcoin
from custody.control_messages import ScopeKind
from custody.errors import NotPossible
from custody.freeze_model import Scope
from custody.freezes import close_automatically
from custody.model import AddressPurpose
from custody.payout_model import AttemptState
from custody.restore.coverage import vouch
from custody.restore.finding import begin
from custody.restore.model import SourceState, Stage, vouching_bytes
from custody.restore.progress import list_missing
from custody.restore.store import get_source, list_sources
from custody.signer.testing import local_signer, rules_for
from custody.testing import allow, set_policy
from kernel.clock import ManualClock
from ledger.posting import open_book
from ledger.testing import enforce_lock_order
from registry.changes import found
from registry.model import Founding, WalletPurpose
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair
from tests.custody.bitcoin.cold_people import ANN, BEN, CLEO, shared_wallet, signed_by
from tests.custody.bitcoin.spend_world import (
    BOOK,
    BTC,
    CAPITAL,
    DEPOSITS,
    PAYEES,
    START,
    SpendWorld,
    give_capital,
)

DAN = next(item for item in DEMO_OPERATORS if item.code == "dan")
VAULT = replace(shared_wallet(POOL, "client"), purpose=WalletPurpose.DEPOSIT)


def founding() -> Founding:
    """The house, whose clients' wallet takes two of three people."""
    made = with_bitcoin(demo_founding())
    wallets = tuple(VAULT if item.code == POOL else item for item in made.wallets)
    return replace(made, wallets=wallets)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    node, clock, house = ScriptedBitcoin(), ManualClock(START), founding()
    rules = rules_for(house.chains, house.chain_assets, DEMO_OPERATORS)
    with local_signer(tmp_path, rules, clock=clock) as signer, enforce_lock_order(engine):
        made = SpendWorld(engine, node, signer, clock, vault=signer)
        async with engine.begin() as conn:
            now = clock.now()
            await found(conn, house, now=now)
            await open_book(conn, BOOK, entity="causeway-desk", now=now)
            for wallet in (POOL, HOT):
                await assign_address(conn, wallet, purpose=AddressPurpose.HOT, now=now)
            deposit = AddressPurpose.DEPOSIT
            acme = await assign_address(conn, POOL, purpose=deposit, party="acme", now=now)
            birch = await assign_address(conn, POOL, purpose=deposit, party="birch", now=now)
            await set_policy(conn, now=now)
            for payee in PAYEES:
                await allow(conn, "acme", payee, now=now, chain=CHAIN)
        await made.follow()
        coins = [node.pay((acme.address, amount)) for amount in DEPOSITS]
        node.mine(*coins, node.pay((birch.address, CAPITAL)))
        await made.mine(3)
        await made.credit()
        await made.run(lambda conn: give_capital(conn, made))
        yield made


async def test_a_payout_of_a_shared_wallet_waits_for_its_people_and_goes_the_usual_way(
    world: SpendWorld,
) -> None:
    payout = await world.approved(amount=BTC // 2)
    report = await world.advance()
    one = await world.only()
    assert (one.spend.state, one.current.asked_at) == (SpendState.ALLOCATED, None)
    assert report.signed == []
    assert "is cold" in one.spend.waiting_for

    now = world.clock.now()
    given = await world.run(lambda conn: export_spend(conn, one.spend.id, by=DAN, now=now))
    assert [item.place is None for item in given.story.outputs].count(True) == 1
    assert given.story.required == 2
    assert given.descriptors[0].startswith("wsh(sortedmulti(2,[")
    again = await world.run(lambda conn: export_spend(conn, one.spend.id, by=DAN, now=now))
    assert again == given
    assert (await world.only()).current.asked_at == now

    parts = signed_by(given.psbt, VAULT, [ANN, CLEO])
    story = await world.run(lambda conn: inspect_part(conn, POOL, parts[0]))
    assert (story.signed, story.is_complete) == ((1,) * story.inputs, False)
    with pytest.raises(NotPossible, match="1 of 2"):
        await world.run(lambda conn: import_spend(conn, one.spend.id, parts[:1], by=DAN, now=now))
    assert (await world.only()).spend.state is SpendState.ALLOCATED

    signed = await world.run(lambda conn: import_spend(conn, one.spend.id, parts, by=DAN, now=now))
    other = signed_by(given.psbt, VAULT, [BEN, CLEO])
    same = await world.run(lambda conn: import_spend(conn, one.spend.id, other, by=DAN, now=now))
    assert same == signed, "the first bytes stay"
    assert (await world.only()).spend.state is SpendState.SIGNED
    await world.assert_exact()

    report = await world.advance()
    assert report.sent == [payout.id]
    assert world.node.pool == {signed.tx_id}
    one = await world.only()
    assert one.current.state is AttemptState.BROADCAST
    assert decode(one.current.raw or b"").weight <= one.current.weight
    await world.mine(3)
    assert await world.confirm()
    assert await world.states([payout]) == {"confirmed"}
    await world.assert_exact()


async def test_what_was_not_given_out_is_not_taken(world: SpendWorld) -> None:
    await world.approved(amount=BTC // 2)
    await world.advance()
    one = await world.only()
    now = world.clock.now()
    async with world.engine.connect() as conn:
        given = await export_spend(conn, one.spend.id, by=DAN, now=now)
        await conn.rollback()

    parts = signed_by(given.psbt, VAULT, [ANN, BEN])
    with pytest.raises(NotPossible, match="never given out"):
        await world.run(lambda conn: import_spend(conn, one.spend.id, parts, by=DAN, now=now))
    assert await world.run(lambda conn: list_waiting(conn, CHAIN)) == [one.spend]
    await world.assert_exact()


async def test_a_payout_that_is_stopped_is_not_given_out(world: SpendWorld) -> None:
    await world.approved(amount=BTC // 2)
    await world.advance()
    one = await world.only()
    now = world.clock.now()

    async def freeze(conn: AsyncConnection) -> None:
        await close_automatically(
            conn, Scope(ScopeKind.CLIENT, "acme"), by="system:test", reason="test", now=now
        )

    await world.run(freeze)
    with pytest.raises(NotPossible, match="stopped"):
        await world.run(lambda conn: export_spend(conn, one.spend.id, by=DAN, now=now))
    assert (await world.only()).current.asked_at is None


async def test_after_a_restore_a_person_says_what_was_signed_for_a_cold_wallet(
    world: SpendWorld,
) -> None:
    """No log of ours has it, so nothing else asks for it before the doors are open."""
    now, reason = world.clock.now(), "its people have signed nothing since"
    standing = await world.run(lambda conn: begin(conn, "the disk was lost", now=now))

    cold = await world.run(lambda conn: get_source(conn, standing.id, f"cold:{POOL}"))

    assert (cold.stage, cold.state) == (Stage.FACTS, SourceState.WAITING)
    missing = await world.run(lambda conn: list_missing(conn, standing.id))
    assert any(line.startswith(f"cold:{POOL} is not read") for line in missing)
    signature = operator_keypair("dan").sign(vouching_bytes(cold, reason))
    said: dict[str, Any] = {"signature": signature, "reason": reason, "now": now}
    await world.run(lambda conn: vouch(conn, cold.source, by="dan", **said))
    missing = await world.run(lambda conn: list_missing(conn, standing.id))
    assert not any(line.startswith("cold:") for line in missing)
    # The keys of the other one are the signer's, and its log says what they signed.
    listed = await world.run(lambda conn: list_sources(conn, standing.id))
    assert [item.source for item in listed if item.source.startswith("cold:")] == [cold.source]
