"""Where coins may go: who may say so, what looks like something else, what a contract has to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.addresses import checksum_address
from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody.allow_list import (
    approve_destination,
    destination_bytes,
    draft_destination,
    get_destination,
    propose_destination,
    record_code,
    record_return,
    revocation_bytes,
    revoke_destination,
)
from custody.destinations import Known, find_look_alikes, is_contract, look_of
from custody.errors import NotPossible
from custody.payout_model import AllowedDestination, DestinationKind, PayoutState
from custody.policy_model import PolicyDocument, PolicyRule
from custody.testing import allow, propose, set_policy
from kernel.errors import BadInput, CausewayError, Refused
from registry.testing import TOKEN, operator_keypair
from tests.custody.payout_world import PAYEE, STRANGER, USDT, World, make_world

CODE = bytes.fromhex("6080604052")
SAFE = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


def alike(address: str) -> str:
    """An address that begins and ends like another: what poisoners grind."""
    digits = address[2:].lower()
    middle = "ab" * 16
    return checksum_address(bytes.fromhex(digits[:4] + middle + digits[-4:]))


async def try_propose(world: World, address: str, **more: Any) -> AllowedDestination:
    now = world.clock.now()
    return await world.run(lambda c: propose(c, "acme", address, now=now, **more))


# What looks like something else.


async def test_11_an_address_that_begins_and_ends_like_a_known_one_is_refused(
    world: World,
) -> None:
    """Failure 11: $68M went to an address that differed only in the middle."""
    with pytest.raises(Refused, match=f"begins and ends like {PAYEE} of acme"):
        await try_propose(world, alike(PAYEE))
    with pytest.raises(Refused, match="begins and ends like"):
        await world.run(lambda c: propose(c, "birch", alike(PAYEE), now=world.clock.now()))


async def test_11_an_address_that_looks_like_one_of_ours_is_refused(world: World) -> None:
    """Failure 11: a poisoner imitates the desk's own deposit address, too."""
    hot = world.hot["client-pool"]

    with pytest.raises(Refused, match=f"begins and ends like {hot} of our wallet client-pool"):
        await try_propose(world, alike(hot))


async def test_who_names_the_other_address_may_propose_the_one_that_looks_like_it(
    world: World,
) -> None:
    with pytest.raises(Refused, match="begins and ends like"):
        await try_propose(world, alike(PAYEE), acknowledged=[STRANGER])

    proposed = await try_propose(world, alike(PAYEE), acknowledged=[PAYEE])

    assert proposed.acknowledged == (PAYEE,)


async def test_11_coins_go_only_where_the_list_says_digit_by_digit(world: World) -> None:
    """Failure 11: the destination is looked up in the list, never in a history of payments."""
    with pytest.raises(Refused, match="not an allowed destination of acme"):
        await world.request(destination=alike(PAYEE))


def test_the_same_address_is_not_its_own_look_alike() -> None:
    known = [Known(PAYEE, "acme"), Known(STRANGER, "birch"), Known(alike(PAYEE), "cedar")]

    assert find_look_alikes(PAYEE, known) == (known[2],)
    assert look_of(PAYEE) == look_of(alike(PAYEE)) == "709979c8"


# What coins must never be sent to.


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0x" + "0" * 40, "is nobody's address"),
        ("0x" + "0" * 39 + "9", "is nobody's address"),
        (TOKEN, "is the contract of a token"),
        ("hot", "is our own address"),
        (PAYEE.lower(), "EIP-55"),
        ("0x1234", "is not an address"),
    ],
)
async def test_what_must_never_be_paid_is_refused(world: World, address: str, says: str) -> None:
    given = world.hot["house-hot"] if address == "hot" else address

    with pytest.raises(CausewayError, match=says):
        await try_propose(world, given)


# Contracts.


async def contract(world: World) -> AllowedDestination:
    return await try_propose(world, SAFE, kind=DestinationKind.CONTRACT)


async def approve(world: World, item: AllowedDestination, by: str = "ben") -> AllowedDestination:
    signature = operator_keypair(by).sign(destination_bytes(item))
    now = world.clock.now()
    return await world.run(
        lambda c: approve_destination(c, item.id, by=by, signature=signature, now=now)
    )


async def pay_back(world: World, sender: str = SAFE) -> str:
    """The contract sends a token to one of our addresses; return the transaction."""
    sent = ScriptedTransaction(
        sender=STRANGER,
        recipient=TOKEN,
        transfers=(ScriptedTransfer(TOKEN, sender, world.hot["client-pool"], USDT),),
    )
    world.gateway.fund(sender, USDT, TOKEN)
    world.gateway.mine(sent)
    await world.follow()
    return sent.hash


async def test_12_a_contract_is_allowed_only_where_it_is_and_has_sent_something_back(
    world: World,
) -> None:
    """Failure 12: 20M OP went to a contract that was not deployed there; test payments arrived."""
    proposed = await contract(world)
    now = world.clock.now()

    with pytest.raises(NotPossible, match="is not proved to be on evm"):
        await approve(world, proposed)
    with pytest.raises(NotPossible, match=r"there is no code at .* on evm, so it is no contract"):
        await world.run(lambda c: record_code(c, proposed.id, b"", now=now))
    await world.run(lambda c: record_code(c, proposed.id, CODE, now=now))
    with pytest.raises(NotPossible, match="is not proved"):
        await approve(world, proposed)
    foreign = await pay_back(world, sender=STRANGER)
    with pytest.raises(NotPossible, match=f"nothing has come from {SAFE}"):
        await world.run(lambda c: record_return(c, proposed.id, foreign, now=now))
    returned = await pay_back(world)
    await world.run(lambda c: record_return(c, proposed.id, returned, now=now))

    allowed = await approve(world, proposed)

    assert (allowed.return_tx, allowed.code_hash is None) == (returned, False)


async def test_12_what_came_back_in_a_block_that_is_gone_proves_nothing(world: World) -> None:
    """Failure 12, and a reorganisation: the proof has to be on the chain."""
    proposed = await contract(world)
    returned = await pay_back(world)
    world.gateway.rollback(1)
    world.gateway.drop(returned)
    world.gateway.mine()
    world.gateway.mine()
    await world.follow()

    with pytest.raises(NotPossible, match="nothing has come from"):
        await world.run(lambda c: record_return(c, proposed.id, returned, now=world.clock.now()))


async def test_an_account_with_a_key_has_no_code(world: World) -> None:
    proposed = await try_propose(world, SAFE)
    now = world.clock.now()

    with pytest.raises(NotPossible, match="there is code of 5 bytes at"):
        await world.run(lambda c: record_code(c, proposed.id, CODE, now=now))
    delegated = bytes.fromhex("ef0100") + bytes(20)
    await world.run(lambda c: record_code(c, proposed.id, delegated, now=now))
    assert not is_contract(b"")
    assert not is_contract(delegated)
    assert is_contract(delegated + b"\0")


async def test_the_database_itself_asks_for_the_proof_of_a_contract(
    world: World, owner_engine: AsyncEngine
) -> None:
    proposed = await contract(world)

    with pytest.raises(DBAPIError, match="contract_proved"):
        async with owner_engine.begin() as conn:
            await conn.execute(
                text(
                    "UPDATE custody.allowed_destination SET state = 'active', approved_by = 'ben',"
                    " signature = 'x', usable_from = now() WHERE id = :id"
                ),
                {"id": proposed.id},
            )


async def test_12_an_entry_of_another_chain_never_counts(
    world: World, owner_engine: AsyncEngine
) -> None:
    """Failure 12: the same address on another chain may be nobody's."""
    await world.request()
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE custody.allowed_destination SET chain = 'evm2'"))

    with pytest.raises(NotPossible, match=f"{PAYEE} on evm is not an allowed destination"):
        await world.request(client_ref="w-2")


async def test_12_an_entry_for_a_copy_of_the_chain_never_counts(
    world: World, owner_engine: AsyncEngine
) -> None:
    """Failure 12: what tells a chain from its copies is the network id that two people signed."""
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE custody.allowed_destination SET chain_id = 1"))

    with pytest.raises(NotPossible, match="is allowed on network 1, and evm is 31337"):
        await world.request()


# Who may say so.


async def test_both_people_sign_the_same_and_each_field_of_it(world: World) -> None:
    now = world.clock.now()
    given: dict[str, Any] = {
        "party": "acme",
        "chain": "evm",
        "address": SAFE,
        "label": "x",
        "by": "ada",
        "now": now,
    }
    draft = await world.run(lambda c: draft_destination(c, **given))
    signed = destination_bytes(draft)
    changes: dict[str, Any] = {
        "party": "birch",
        "chain": "evm2",
        "chain_id": 1,
        "address": PAYEE,
        "kind": DestinationKind.CONTRACT,
        "cooling_off_s": 1,
        "proposed_at": now + timedelta(seconds=1),
    }
    for name, value in changes.items():
        other = replace(draft, **{name: value})
        assert destination_bytes(other) != signed
        signature = operator_keypair("ada").sign(destination_bytes(other))
        trying = partial(propose_destination, signature=signature, **given)
        with pytest.raises(Refused, match="signature is not ada's"):
            await world.run(trying)
    proposed = await world.run(
        lambda c: propose_destination(c, signature=operator_keypair("ada").sign(signed), **given)
    )
    with pytest.raises(Refused, match="ada proposed this destination"):
        await approve(world, proposed, by="ada")
    with pytest.raises(Refused, match="dan is not"):
        await approve(world, proposed, by="dan")

    allowed = await approve(world, proposed)

    assert allowed.proposal_signature == operator_keypair("ada").sign(signed)
    assert allowed.signature == operator_keypair("ben").sign(signed)


async def test_one_person_revokes_with_a_signature_and_the_entry_stays_revoked(
    world: World,
) -> None:
    item = await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))

    async def revoke(conn: AsyncConnection, signature: bytes, at: datetime) -> None:
        await revoke_destination(
            conn, item.id, by="dan", signature=signature, reason="key lost", now=at
        )

    wrong = operator_keypair("ben").sign(revocation_bytes(item.id))
    with pytest.raises(Refused, match="signature is not dan's"):
        await world.run(lambda c: revoke(c, wrong, world.clock.now()))
    right = operator_keypair("dan").sign(revocation_bytes(item.id))
    await world.run(lambda c: revoke(c, right, world.clock.now()))

    with pytest.raises(Refused, match="not an allowed destination"):
        await world.request(destination=STRANGER)
    with pytest.raises(Refused, match="cannot go from revoked to active"):
        await approve(world, await world.run(lambda c: get_destination(c, item.id)))
    world.clock.advance(timedelta(seconds=1))
    again = await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))
    assert again.id != item.id
    assert (await world.request(destination=STRANGER)).state is PayoutState.PENDING_APPROVAL


async def test_a_cooling_off_is_at_least_what_the_policy_asks(world: World) -> None:
    document = PolicyDocument(rules=(PolicyRule(),), cooling_off_min_s=3_600)
    await world.run(lambda c: set_policy(c, now=world.clock.now(), document=document))

    with pytest.raises(Refused, match="shorter than the 1:00:00"):
        await try_propose(world, SAFE)
    with pytest.raises(BadInput, match="a cooling-off of"):
        await try_propose(world, SAFE, cooling_off=timedelta(days=31))
    await try_propose(world, SAFE, cooling_off=timedelta(hours=1))


async def test_a_rule_may_ask_for_an_older_destination(world: World) -> None:
    old = PolicyRule(destination_age_min_s=86_400, name="known for a day")
    document = PolicyDocument(rules=(old, PolicyRule(approvals=2)))
    await world.run(lambda c: set_policy(c, now=world.clock.now(), document=document))

    young = await world.request(client_ref="a")
    world.clock.advance(timedelta(days=1))
    known = await world.request(client_ref="b")

    assert (young.rule, known.rule) == (2, 1)
