"""The switches: who may turn them which way, what holds for a desk, and that nothing slips past."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import stable_id
from kernel.states import trigger_name, trigger_statements
from registry.errors import NotAuthorised, UnknownRecord
from risk.breaker import BREAKER_STATES
from risk.controls import ENTITY, control_of, list_controls, own_control, set_control
from risk.errors import NotLooser, TwoPeopleNeeded
from risk.model import CONTROL_STATES, EVERY, Control, ControlState
from tests.locks import until_waiting
from tests.risk.conftest import DESK, NOW, resumed

A, R, H = ControlState.ACTIVE, ControlState.REDUCING, ControlState.HALTED


async def turned(
    engine: AsyncEngine,
    state: ControlState,
    desk: str = DESK,
    *,
    by: str = "dan",
    reason: str = "strange fills",
) -> Control:
    return await transact(
        engine,
        lambda conn: set_control(conn, desk, state, by=by, reason=reason, now=NOW),
    )


async def state_of(engine: AsyncEngine, desk: str = DESK) -> ControlState:
    async with engine.connect() as conn:
        return (await control_of(conn, desk)).state


async def test_a_desk_that_nobody_spoke_of_is_active(house: AsyncEngine) -> None:
    async with house.connect() as conn:
        assert await control_of(conn, DESK) == Control(desk=DESK, state=A)
        assert await list_controls(conn) == []


async def test_one_person_tightens_and_two_loosen_and_all_of_it_is_told(
    house: AsyncEngine,
) -> None:
    halted = await turned(house, H)
    active = await resumed(house)

    assert (halted.state, halted.by, halted.reason, halted.since) == (
        H,
        "dan",
        "strange fills",
        NOW,
    )
    assert (active.state, active.by, active.version) == (A, "ada and ben", 2)
    async with house.connect() as conn:
        told = await list_history(conn, ENTITY, stable_id(ENTITY, DESK))
    assert [(e.name, e.actor, e.reason) for e in told] == [
        ("DeskHalted", "dan", "strange fills"),
        ("DeskResumed", "ada and ben", "looked at"),
    ]


async def test_nobody_loosens_alone_not_even_a_machine(house: AsyncEngine) -> None:
    for first in (R, H):
        await turned(house, first)

        for by in ("ada", "system:loss-watch"):
            with pytest.raises(TwoPeopleNeeded, match="strange fills"):
                await turned(house, A, by=by)
        with pytest.raises(TwoPeopleNeeded, match="1 of 2"):
            await resumed(house, people=("ada",))
        assert await state_of(house) is first


async def test_a_machine_tightens_and_as_strict_again_changes_nothing(house: AsyncEngine) -> None:
    first = await turned(house, R, by="system:loss-watch", reason="lost")
    again = await turned(house, R, by="dan")

    assert again == first
    assert first.version == 1


async def test_to_loosen_both_must_be_allowed_to_and_sign_themselves(house: AsyncEngine) -> None:
    await turned(house, H)
    cases: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("ada", "ben"), {"ben": "ada"}),
        (("ada", "dan"), {}),
        (("dan", "cleo"), {}),
    ]

    for people, signers in cases:
        with pytest.raises(NotAuthorised):
            await resumed(house, people=people, signers=signers)
        assert await state_of(house) is H


async def test_signatures_are_of_one_version_and_do_not_loosen_again(
    house: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from risk import controls  # noqa: PLC0415  its own bytes are made stale here

    await turned(house, H)
    await resumed(house)
    await turned(house, H)
    made = controls.loosen_bytes
    monkeypatch.setattr(
        "tests.risk.conftest.loosen_bytes",
        lambda desk, state, reason, *, version: made(desk, state, reason, version=version - 2),
    )

    with pytest.raises(NotAuthorised):
        await resumed(house)


async def test_from_halted_the_desk_may_first_only_reduce_and_what_is_loose_is_not_loosened(
    house: AsyncEngine,
) -> None:
    with pytest.raises(NotLooser):
        await resumed(house)
    await turned(house, H)

    assert (await resumed(house, state=R)).state is R
    assert (await resumed(house, state=A)).state is A


async def test_the_stricter_of_the_desks_and_the_houses_switch_holds(house: AsyncEngine) -> None:
    cases = [(A, H, H), (R, A, R), (R, H, H), (H, R, H), (A, R, R)]

    for desk, every, holds in cases:
        turns = [(name, to) for name, to in ((DESK, desk), (EVERY, every)) if to is not A]
        for name, state in turns:
            await turned(house, state, name)

        assert await state_of(house) is holds
        assert await state_of(house, "another") is every
        async with house.connect() as conn:
            assert (await own_control(conn, DESK)).state is desk
        for name, _ in turns:
            await resumed(house, name)


async def test_only_operators_turn_a_switch_and_they_say_why(house: AsyncEngine) -> None:
    with pytest.raises(UnknownRecord):
        await turned(house, H, by="nobody")
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(BadInput, match="reason"):
            await turned(house, H, reason=reason)
    for desk in ("", "two words", "x" * 65):
        with pytest.raises(BadInput, match="no name"):
            await turned(house, H, desk)


async def test_turning_waits_for_whoever_plans_and_whoever_plans_after_sees_it(
    house: AsyncEngine,
) -> None:
    """The lock is what a kill relies on: after it nothing passes that it has not seen."""
    for desk in (DESK, EVERY):
        await _race(house, desk)


async def _race(house: AsyncEngine, desk: str, *, planning: str = DESK) -> None:
    holding, seen = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def plan(conn: AsyncConnection) -> None:
        assert (await control_of(conn, planning, lock=True)).state is A
        holding.set()
        await until_waiting(house)
        order.append("planned")
        seen.set()

    async def turn() -> None:
        await holding.wait()
        await turned(house, H, desk)
        order.append("halted")

    async with asyncio.TaskGroup() as group:
        group.create_task(transact(house, plan))
        group.create_task(turn())
    assert order == ["planned", "halted"]
    await resumed(house, desk)


async def test_a_desk_without_a_row_cannot_slip_past_the_houses_switch(house: AsyncEngine) -> None:
    """Its row is made under a share of the house's, so the two meet whichever comes first."""
    holding = asyncio.Event()
    saw: list[ControlState] = []

    async def halt(conn: AsyncConnection) -> None:
        await set_control(conn, EVERY, H, by="dan", reason="stop", now=NOW)
        holding.set()
        await until_waiting(house)

    async def plan(conn: AsyncConnection) -> None:
        saw.append((await control_of(conn, "brand-new", lock=True)).state)

    async def later() -> None:
        await holding.wait()
        await transact(house, plan)

    async with asyncio.TaskGroup() as group:
        group.create_task(transact(house, halt))
        group.create_task(later())

    assert saw == [H]
    await resumed(house, EVERY)
    # The house has its row by now, so whoever halts it has nothing to wait for but the share.
    await _race(house, EVERY, planning="newer")


async def test_the_database_keeps_the_edges_too(owner_engine: AsyncEngine) -> None:
    for machine in (CONTROL_STATES, BREAKER_STATES):
        async with owner_engine.connect() as conn:
            known = await conn.scalar(
                text("SELECT pg_get_functiondef(CAST(:name AS regproc))"),
                {"name": f"{machine.schema}.{trigger_name(machine)}"},
            )
        wanted = trigger_statements(machine)[0]
        assert _body(known) == _body(wanted)


def _body(statement: Any) -> str:
    return " ".join(str(statement).split("BEGIN", 1)[1].split("END\n$", 1)[0].split())


async def test_a_row_that_begins_halted_or_was_turned_by_nobody_is_refused(
    engine: AsyncEngine,
) -> None:
    statement = text(
        "INSERT INTO risk.desk_control (desk, state, reason, changed_by, version)"
        " VALUES ('x', :state, '', '', :version)"
    )

    for state, version, message in (
        ("halted", 0, "cannot begin as"),
        ("active", 1, "ck_desk_control_since"),
    ):
        values = {"state": state, "version": version}
        with pytest.raises(DBAPIError, match=message):
            async with engine.begin() as conn:
                await conn.execute(statement, values)
