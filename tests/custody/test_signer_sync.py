"""What people sign in the application reaches the signer, once and in order; the database witnesses."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Never

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.allow_list import revocation_bytes, revoke_destination
from custody.control_messages import ControlMessage, ScopeKind
from custody.freeze_model import Scope, freeze_bytes, thaw_bytes
from custody.freezes import close, derive_freeze_id, open_again
from custody.payout_model import PayoutState
from custody.payout_tables import payout as payout_table
from custody.signer.errors import StoreUnusable
from custody.signer.rules import Rules
from custody.signer.testing import LocalSigner, local_signer, rules_for
from custody.signer_sync import ControlState, adopt_signer, list_messages, push_control
from custody.testing import allow
from kernel.errors import OutsideUnavailable
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair
from tests.custody.payout_world import STRANGER, World, make_world


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


def inside(world: World) -> LocalSigner:
    assert isinstance(world.vault, LocalSigner)
    return world.vault


async def states(world: World) -> list[tuple[str, ControlState]]:
    found = await world.run(list_messages)
    return [(item.kind, item.state) for item in found]


async def test_what_two_people_sign_is_handed_over_once_and_in_order(world: World) -> None:
    queued = await states(world)
    assert {kind for kind, _ in queued} == {"policy", "destination.allow"}
    assert {state for _, state in queued} == {ControlState.QUEUED}

    await world.tell_signer()
    size = inside(world).signer.memory.log.size
    await world.tell_signer()

    handed = await world.run(list_messages)
    assert {item.state for item in handed} == {ControlState.ACCEPTED}
    assert [item.record for item in handed] == list(range(1, len(handed) + 1))
    assert inside(world).signer.memory.log.size == size


async def test_a_message_is_handed_over_again_after_a_lost_answer(world: World) -> None:
    class Lossy(LocalSigner):
        async def control(self, message: ControlMessage) -> Never:
            await super().control(message)
            raise OutsideUnavailable("the line is cut")

    world.vault = Lossy(inside(world).signer)
    with pytest.raises(OutsideUnavailable):
        await world.tell_signer()
    first = inside(world).signer.memory.log.size
    world.vault = LocalSigner(inside(world).signer)

    await world.tell_signer()

    assert {state for _, state in await states(world)} == {ControlState.ACCEPTED}
    assert inside(world).signer.memory.log.size == first + len(await states(world)) - 1


async def test_a_payee_that_only_the_database_has_is_not_paid(
    world: World, owner_engine: AsyncEngine
) -> None:
    """Whoever can write to the main database changes the payee of an approved payout, and no more."""
    payout = await world.approved()

    await world.run(lambda conn: allow(conn, "acme", STRANGER, now=world.clock.now()))
    await world.tell_signer()
    async with owner_engine.begin() as conn:
        await conn.execute(
            update(payout_table).where(payout_table.c.id == payout.id).values(destination=STRANGER)
        )
    await world.advance()

    assert (await world.get(payout)).state is PayoutState.REJECTED
    assert inside(world).signer.memory.count() == 0


async def test_a_freeze_of_one_person_stops_the_signer_and_two_open_it(world: World) -> None:
    now, scope = world.clock.now(), Scope(ScopeKind.CLIENT, "acme")
    freeze_id = derive_freeze_id(scope, now)
    signature = operator_keypair("dan").sign(freeze_bytes(freeze_id, scope, "odd"))
    await world.run(lambda c: close(c, scope, by="dan", signature=signature, reason="odd", now=now))
    await world.tell_signer()
    assert [item.name for item in inside(world).signer.state.freezes.values()] == ["acme"]

    thaw = thaw_bytes(freeze_id, "seen to")
    opening = {code: operator_keypair(code).sign(thaw) for code in ("ben", "cleo")}
    await world.run(lambda c: open_again(c, scope, signatures=opening, reason="seen to", now=now))
    await world.tell_signer()
    assert inside(world).signer.state.freezes == {}


async def test_a_revocation_of_one_person_reaches_the_signer(world: World) -> None:
    allowed = await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))
    await world.tell_signer()
    before = len(inside(world).signer.state.destinations)
    signature = operator_keypair("dan").sign(revocation_bytes(allowed.id))
    await world.run(
        lambda c: revoke_destination(
            c, allowed.id, by="dan", signature=signature, reason="gone", now=world.clock.now()
        )
    )
    await world.tell_signer()

    assert len(inside(world).signer.state.destinations) == before - 1
    assert allowed.id in inside(world).signer.state.revoked


def demo_rules() -> Rules:
    founding = demo_founding()
    return rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)


async def test_a_signer_that_was_set_back_is_not_used_though_it_started(
    world: World, tmp_path: Path
) -> None:
    """Store and checkpoint were restored together, from one backup: only the witness can tell."""
    home = tmp_path / "second"
    home.mkdir()
    with local_signer(home, demo_rules(), clock=world.clock) as signer:
        await world.use(signer)
    shutil.copytree(home, tmp_path / "backup")
    with local_signer(home, demo_rules(), clock=world.clock) as signer:
        world.vault = signer
        await world.tell_signer()
    with local_signer(tmp_path / "backup", demo_rules(), clock=world.clock) as signer:
        world.vault = signer
        await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))
        with pytest.raises(StoreUnusable, match="1 records does not go on from the 4"):
            await world.tell_signer()


async def test_another_store_is_used_only_once_it_is_adopted(world: World, tmp_path: Path) -> None:
    await world.tell_signer()
    home = tmp_path / "second"
    home.mkdir()
    with ExitStack() as stack:
        signer = stack.enter_context(local_signer(home, demo_rules(), clock=world.clock))
        world.vault = signer
        await world.run(lambda c: allow(c, "acme", STRANGER, now=world.clock.now()))
        with pytest.raises(StoreUnusable, match="another store than before"):
            await world.tell_signer()
        key = (await signer.health()).verifier_key
        await world.run(lambda c: adopt_signer(c, key, now=world.clock.now()))
        report = await push_control(world.engine, signer, now=world.clock.now())

    assert len(report.accepted) == len(await states(world))


async def test_what_the_signer_refuses_is_noted_with_its_reason(
    world: World, tmp_path: Path
) -> None:
    home = tmp_path / "second"
    home.mkdir()
    founding = demo_founding()
    people = [item for item in DEMO_OPERATORS if item.code != "ben"]
    strict = rules_for(founding.chains, founding.chain_assets, people)
    with local_signer(home, strict, clock=world.clock) as signer:
        await world.use(signer)
        report = await push_control(world.engine, signer, now=world.clock.now())

    assert set(report.refused.values()) == {"ben is not an approver that the signer knows"}
    assert {state for _, state in await states(world)} == {ControlState.REFUSED}
