"""Limits on record: two people, one version after the other, never changed; the loss of a day."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import stable_id
from registry.errors import NotAuthorised, SamePerson, UnknownRecord
from registry.queries import get_operator
from registry.testing import ETH, USDT, operator_keypair
from risk.controls import control_of
from risk.errors import LimitsChanged
from risk.limits import (
    DESK_ENTITY,
    desk_limits_bytes,
    desk_limits_of,
    list_desk_limits,
    list_party_limits,
    party_limits_of,
    set_desk_limits,
)
from risk.loss import lose_sight, watch_losses
from risk.loss_limits import judge_loss
from risk.model import EVERY, ControlState, DeskLimits, PartyLimits
from tests.risk.conftest import DESK, NOW, limit_desk, limit_party, resumed

ALL: dict[str, Any] = {
    "asset_units": {"ETH": ETH.parse("10")},
    "notional_units": 10**40,
    "order_notional_units": 2,
    "orders_per_minute": 3,
    "unknown_orders_max": 0,
    "loss_units": 5,
    "book_age_max_ms": 6,
    "venue_units": {"kraken": 7},
}


async def test_limits_are_read_as_they_were_set_and_the_newest_version_holds(
    house: AsyncEngine,
) -> None:
    await limit_desk(house)
    desk = await limit_desk(house, version=2, **ALL)
    party = await limit_party(house, exposure_units=10**40, settlement_units=0)

    async with house.connect() as conn:
        assert await desk_limits_of(conn, DESK) == desk
        assert await list_desk_limits(conn) == [desk]
        assert await party_limits_of(conn, "acme") == party
        assert await party_limits_of(conn, "birch") is None
        assert await list_party_limits(conn) == [party]
        told = await list_history(conn, DESK_ENTITY, stable_id(DESK_ENTITY, DESK))
    assert [(event.name, event.actor) for event in told] == [("DeskLimitsSet", "ada and ben")] * 2
    assert told[1].payload["notional_units"] == str(10**40)


async def test_the_houses_default_holds_for_whoever_has_none_of_its_own(
    house: AsyncEngine,
) -> None:
    own = await limit_desk(house)
    every = await limit_desk(house, desk=EVERY, order_notional_units=1)
    default = await limit_party(house, EVERY, exposure_units=1)

    async with house.connect() as conn:
        assert await desk_limits_of(conn, DESK) == own
        assert await desk_limits_of(conn, "prime") == every
        assert await party_limits_of(conn, "birch") == default


async def signed(engine: AsyncEngine, by: str, approver: str, key: str, version: int = 1) -> None:
    wanted = DeskLimits(desk=DESK, version=version, currency="USDT")

    async def work(conn: AsyncConnection) -> None:
        await set_desk_limits(
            conn,
            wanted,
            by=await get_operator(conn, by),
            approver=await get_operator(conn, approver),
            signature=operator_keypair(key).sign(desk_limits_bytes(wanted)),
            reason="why not",
            now=NOW,
        )

    await transact(engine, work)


async def test_it_takes_two_people_who_may_and_the_seconds_own_signature(
    house: AsyncEngine,
) -> None:
    cases: list[tuple[str, str, str, type[Exception]]] = [
        ("ada", "ada", "ada", SamePerson),
        ("ada", "ben", "ada", NotAuthorised),
        ("ada", "dan", "dan", NotAuthorised),
        ("dan", "ben", "ben", NotAuthorised),
    ]

    for by, approver, key, error in cases:
        with pytest.raises(error):
            await signed(house, by, approver, key)
        async with house.connect() as conn:
            assert await desk_limits_of(conn, DESK) is None


async def test_a_signature_of_a_version_that_is_past_puts_nothing_back(house: AsyncEngine) -> None:
    await limit_desk(house)

    for version in (0, 1, 3):
        with pytest.raises(LimitsChanged, match="sign version 2"):
            await signed(house, "ada", "ben", "ben", version)
    await limit_party(house, exposure_units=1)
    with pytest.raises(LimitsChanged):
        await limit_party(house, exposure_units=2)


async def test_limits_are_of_assets_and_parties_that_are_registered(house: AsyncEngine) -> None:
    with pytest.raises(UnknownRecord):
        await limit_desk(house, asset_units={"DOGE": 1})
    with pytest.raises(UnknownRecord):
        await limit_desk(house, currency="USD")
    with pytest.raises(UnknownRecord):
        await limit_party(house, "nobody")


@pytest.mark.parametrize(
    "changes",
    [
        {"asset_units": {"ETH": -1}},
        {"venue_units": {"kraken": -1}},
        {"notional_units": -1},
        {"orders_per_minute": 10_001},
        {"unknown_orders_max": -1},
        {"loss_units": 0},
        {"book_age_max_ms": -1},
        {"order_notional_units": 10**61},
        {"desk": "two words"},
    ],
)
def test_limits_that_mean_nothing_are_not_taken(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        DeskLimits(**{"desk": DESK, "currency": "USDT", **changes})
    if not set(changes) - {"notional_units"}:
        with pytest.raises(BadInput):
            PartyLimits(party="acme", currency="USDT", exposure_units=-1)


async def test_a_version_that_was_in_force_is_never_changed(engine: AsyncEngine) -> None:
    for statement in (
        "UPDATE risk.desk_limits SET currency = 'x'",
        "DELETE FROM risk.desk_limits",
        "UPDATE risk.party_limits SET currency = 'x'",
        "DELETE FROM risk.party_limits",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with engine.begin() as conn:
                await conn.execute(text(statement))


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (10**9, ControlState.ACTIVE),
        (-99, ControlState.ACTIVE),
        (-100, ControlState.REDUCING),
        (-199, ControlState.REDUCING),
        (-200, ControlState.HALTED),
    ],
)
def test_a_loss_that_reaches_the_limit_reduces_and_twice_that_halts(
    result: int, state: ControlState
) -> None:
    limits = DeskLimits(desk=DESK, currency="USDT", loss_units=100)

    assert judge_loss(limits, result) is state
    assert judge_loss(None, result) is ControlState.ACTIVE
    assert judge_loss(DeskLimits(desk=DESK, currency="USDT"), result) is ControlState.ACTIVE


async def test_a_bad_day_turns_the_switch_and_a_better_hour_does_not_turn_it_back(
    house: AsyncEngine,
) -> None:
    await limit_desk(house, loss_units=USDT.parse("100"))

    async def watched(text: str) -> ControlState:
        units = USDT.parse(text)
        found = await transact(house, lambda conn: watch_losses(conn, DESK, units, NOW))
        return found.state

    assert await watched("-99.99") is ControlState.ACTIVE
    assert await watched("-100") is ControlState.REDUCING
    assert await watched("50") is ControlState.REDUCING
    assert await watched("-200") is ControlState.HALTED
    assert await watched("-150") is ControlState.HALTED
    async with house.connect() as conn:
        control = await control_of(conn, DESK)
    assert control.by == "system:loss-watch"
    assert control.reason == "the day lost 200 USDT of 100 USDT"

    await resumed(house)
    assert await watched("-150") is ControlState.REDUCING


async def test_a_desk_whose_result_nobody_knows_may_soon_only_take_risk_off(
    house: AsyncEngine,
) -> None:
    async def blind(minutes: int) -> ControlState:
        since = NOW - timedelta(minutes=minutes)
        found = await transact(house, lambda conn: lose_sight(conn, DESK, since=since, now=NOW))
        return found.state

    assert await blind(60) is ControlState.ACTIVE  # there is no limit to judge

    await limit_desk(house, loss_units=USDT.parse("100"))
    assert await blind(4) is ControlState.ACTIVE
    assert await blind(5) is ControlState.REDUCING
    assert await blind(60) is ControlState.REDUCING
    async with house.connect() as conn:
        control = await control_of(conn, DESK)
    assert control.reason.startswith("what the day has lost is not known since 20")
