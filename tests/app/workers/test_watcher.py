"""What the watcher keeps from turn to turn, and whom it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.workers.watcher import Watcher
from chain.errors import NodeUnavailable
from chain.model import PendingMovement, WatchList
from chain.testing import ScriptedGateway
from custody.payout_rules import HEAD_OF_LINE_AFTER, BumpPolicy
from custody.policy import ConfirmationPolicy
from custody.ports import ControlledSigner
from tests.custody.payout_world import BOOK, CONFIRMATIONS, PAYEE, World, make_world

BLOCKED = "a line of payouts does not move"


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


@pytest.fixture
def watcher(world: World) -> Watcher:
    return Watcher(
        engine=world.engine,
        gateway=world.gateway,
        signer=cast("ControlledSigner", world.signer),
        clock=world.clock,
        chain="evm",
        book=BOOK,
        policy=ConfirmationPolicy.uniform(3),
        payout_requirement=CONFIRMATIONS,
    )


async def test_a_line_that_does_not_move_is_a_warning_once_and_its_head_is_bumped(
    world: World, watcher: Watcher
) -> None:
    payout = await world.approved()
    await watcher.turn()
    world.clock.advance(BumpPolicy().bump_after + timedelta(seconds=1))
    assert (await watcher.turn()).work.bumped == [payout.id]
    world.clock.advance(HEAD_OF_LINE_AFTER)

    with capture_logs() as logged:
        first, second = await watcher.turn(), await watcher.turn()

    told = [entry for entry in logged if entry["event"] == BLOCKED]
    assert [(entry["log_level"], entry["nonce"]) for entry in told] == [("warning", 0)]
    assert told[0]["sender"] == payout.sender
    assert all(turn.work.alarms for turn in (first, second))
    await world.mine()
    assert (await watcher.turn()).work.alarms == []
    assert watcher.blocked == set()


async def test_whether_a_payee_has_code_is_asked_once_for_many_turns(
    world: World, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    code_at = ScriptedGateway.code_at

    async def counting(self: ScriptedGateway, address: str) -> bytes:
        asked.append(address)
        return await code_at(self, address)

    monkeypatch.setattr(ScriptedGateway, "code_at", counting)
    for number in range(3):
        payout = await world.approved(client_ref=f"w-{number}", amount=1)
        world.clock.advance(timedelta(seconds=2))
        assert (await watcher.turn()).work.signed == [payout.id]

    assert asked == [PAYEE]


async def test_a_pool_that_is_not_shown_keeps_nothing_else_waiting(
    world: World, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool is for people to see; some providers refuse to show it for ever."""

    async def refuse(self: ScriptedGateway, watch: WatchList) -> tuple[PendingMovement, ...]:
        raise NodeUnavailable("the node refuses txpool_status: not in your plan")

    monkeypatch.setattr(ScriptedGateway, "pending", refuse)
    payout = await world.approved()

    turn = await watcher.turn()

    assert (turn.tip is not None, turn.work.signed) == (True, [payout.id])
