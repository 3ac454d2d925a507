"""Orders checked against real rows: one lock for a desk, so no two lines pass one limit together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.money import Price
from marketdata.prices import record_price
from matching.model import Side, TimeInForce
from registry.testing import ETH, USDT
from risk.breaker import BreakerState
from risk.controls import set_control
from risk.model import Breach, ControlState, DeskBook, Outcome, ProposedOrder, Violation
from risk.order_checks import check_orders
from risk.tables import venue_health
from risk.venue_health import list_breakers, record_outcome, venue_is_open
from tests.locks import until_waiting
from tests.risk.conftest import DESK, NOW, eth_at, limit_desk, resumed
from venues.exposure import list_exposures
from venues.model import OrderTicket
from venues.orders import intend
from venues.records import BINANCE

ONE = ETH.parse("1")
VENUES = ("binance", "kraken")
"""Each is a line of the desk's own: they have different rows to lock."""


def proposed(venue: str = "kraken", side: Side = Side.BUY, units: int = ONE) -> ProposedOrder:
    return ProposedOrder(
        desk=DESK,
        venue=venue,
        account="main",
        asset="ETH",
        quote="USDT",
        side=side,
        base_units=units,
        limit_price=Price.parse("3000", ETH, USDT),
        book_age_ms=10,
    )


async def read_book(conn: AsyncConnection) -> DeskBook:
    found = [
        item for venue in VENUES for item in await list_exposures(conn, venue, "main", "ETH/USDT")
    ]
    return DeskBook(positions={"ETH": 0}, under_way={"ETH": found})


async def ordered(
    engine: AsyncEngine,
    key: str,
    orders: Sequence[ProposedOrder],
    *,
    now: datetime = NOW,
    is_written: bool = True,
) -> tuple[Breach, ...]:
    """Check orders and write the intents of those that pass, in one transaction, as hedging does."""

    async def work(conn: AsyncConnection) -> tuple[Breach, ...]:
        breaches = await check_orders(conn, orders[0].desk, orders, read_book, now=now)
        if breaches or not is_written:
            return breaches
        for number, item in enumerate(orders):
            await intend(
                conn,
                _ticket(item, f"{key}:{number}"),
                capabilities=BINANCE,
                recv_window=timedelta(seconds=3),
                actor="system:test",
                reason="test",
                now=now,
            )
        return ()

    return await transact(engine, work)


def _ticket(item: ProposedOrder, intent: str) -> OrderTicket:
    return OrderTicket(
        venue=item.venue,
        account=item.account,
        symbol="ETH/USDT",
        instrument_version=1,
        side=item.side,
        base_units=item.base_units,
        quantity=ETH.format(item.base_units, code=False),
        price="3000.00",
        time_in_force=TimeInForce.IOC,
        reference=f"hedge:{DESK}:ETH",
        intent=intent,
    )


async def at_once(engine: AsyncEngine, count: int, **changes: Any) -> list[tuple[Breach, ...]]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ordered(engine, f"k{n}", [proposed(VENUES[n % 2])], **changes))
            for n in range(count)
        ]
    return [task.result() for task in tasks]


def names(breaches: Sequence[Breach]) -> list[Violation]:
    return [item.violation for item in breaches]


@pytest.mark.parametrize(
    ("limits", "violation"),
    [
        ({"asset_units": {"ETH": 5 * ONE}}, Violation.ASSET_POSITION),
        ({"notional_units": USDT.parse("15000")}, Violation.TOTAL_NOTIONAL),
        ({"orders_per_minute": 5}, Violation.ORDER_RATE),
        ({"unknown_orders_max": 5}, Violation.TOO_MANY_UNKNOWN),
    ],
)
async def test_of_ten_lines_at_once_exactly_as_many_pass_as_the_limit_lets(
    house: AsyncEngine, limits: dict[str, Any], violation: Violation
) -> None:
    await limit_desk(house, **limits)

    answers = await at_once(house, 10)

    assert sum(answer == () for answer in answers) == 5
    assert {names(answer)[0] for answer in answers if answer} == {violation}
    async with house.connect() as conn:
        written = (await read_book(conn)).under_way["ETH"]
    assert sum(item.possible for item in written) == 5 * ONE


async def test_what_is_under_way_at_one_venue_is_limited_there_only(house: AsyncEngine) -> None:
    await limit_desk(house, venue_units={"kraken": USDT.parse("6000")})

    answers = await at_once(house, 12)

    assert sum(answer == () for answer in answers) == 6 + 2
    assert {item.subject for answer in answers for item in answer} == {"kraken"}


async def test_orders_of_one_check_are_judged_together(house: AsyncEngine) -> None:
    await limit_desk(house, asset_units={"ETH": 5 * ONE})

    refused = await ordered(
        house, "a", [proposed(units=3 * ONE), proposed("binance", units=3 * ONE)]
    )
    assert names(refused) == [Violation.ASSET_POSITION]
    assert (
        await ordered(house, "b", [proposed(units=3 * ONE), proposed("binance", units=2 * ONE)])
        == ()
    )


async def test_a_sale_that_may_not_fill_makes_no_room_for_a_buy(house: AsyncEngine) -> None:
    await limit_desk(house, asset_units={"ETH": 5 * ONE})

    assert await ordered(house, "a", [proposed(units=5 * ONE)]) == ()
    assert await ordered(house, "b", [proposed(side=Side.SELL, units=5 * ONE)]) == ()
    assert names(await ordered(house, "c", [proposed(units=1)])) == [Violation.ASSET_POSITION]
    assert names(await ordered(house, "d", [proposed(side=Side.SELL, units=1)])) == [
        Violation.ASSET_POSITION
    ]


async def test_a_refused_check_counts_for_nothing(house: AsyncEngine) -> None:
    await limit_desk(house, asset_units={"ETH": ONE}, orders_per_minute=1)

    assert names(await ordered(house, "a", [proposed(units=2 * ONE)])) == [Violation.ASSET_POSITION]
    assert await ordered(house, "b", [proposed()]) == ()


async def test_the_rate_is_of_any_sixty_seconds_and_old_orders_are_forgotten(
    house: AsyncEngine,
) -> None:
    await limit_desk(house, orders_per_minute=2)

    def at(second: int) -> dict[str, Any]:
        return {"now": NOW + timedelta(seconds=second)}

    assert await ordered(house, "a", [proposed()], **at(0)) == ()
    assert await ordered(house, "b", [proposed()], **at(30)) == ()
    assert names(await ordered(house, "c", [proposed()], **at(59))) == [Violation.ORDER_RATE]
    assert await ordered(house, "d", [proposed()], **at(60)) == ()
    assert names(await ordered(house, "e", [proposed()], **at(89))) == [Violation.ORDER_RATE]
    # Another process's clock is a little behind: what it has not seen yet counts all the same.
    assert names(await ordered(house, "f", [proposed()], **at(20))) == [Violation.ORDER_RATE]
    assert await ordered(house, "g", [proposed()], **at(300)) == ()


async def test_no_limit_in_money_is_judged_without_a_fresh_price(house: AsyncEngine) -> None:
    await limit_desk(house, order_notional_units=USDT.parse("4000"))
    later = NOW + timedelta(minutes=5)

    assert names(await ordered(house, "a", [proposed()], now=later)) == [Violation.NO_PRICE]
    await transact(house, lambda conn: record_price(conn, eth_at("4001", later), now=later))
    refused = await ordered(house, "b", [proposed()], now=later)

    assert refused == (
        Breach(Violation.ORDER_NOTIONAL, "ETH", USDT.parse("4001"), USDT.parse("4000")),
    )


async def test_a_halted_desk_orders_nothing_and_a_reducing_one_only_towards_zero(
    house: AsyncEngine,
) -> None:
    async def turn(state: ControlState) -> None:
        await transact(
            house, lambda conn: set_control(conn, DESK, state, by="dan", reason="r", now=NOW)
        )

    await turn(ControlState.REDUCING)
    assert names(await ordered(house, "a", [proposed()])) == [Violation.NOT_REDUCING]
    await turn(ControlState.HALTED)
    assert names(await ordered(house, "b", [proposed()])) == [Violation.DESK_HALTED]
    await resumed(house)
    assert await ordered(house, "c", [proposed()]) == ()


async def test_a_kill_and_ten_lines_at_once_leave_no_order_behind_the_kill(
    house: AsyncEngine,
) -> None:
    """What passed is on record when the switch is turned; whoever comes later sees it turned."""
    seen: list[int] = []

    async def kill() -> None:
        await asyncio.sleep(0)
        await transact(
            house,
            lambda conn: set_control(
                conn, "*", ControlState.HALTED, by="dan", reason="stop", now=NOW
            ),
        )
        async with house.connect() as conn:
            seen.append(len((await read_book(conn)).under_way["ETH"]))

    async with asyncio.TaskGroup() as group:
        lines = [
            group.create_task(ordered(house, f"k{n}", [proposed(VENUES[n % 2])])) for n in range(10)
        ]
        group.create_task(kill())

    async with house.connect() as conn:
        written = len((await read_book(conn)).under_way["ETH"])
    assert seen == [written]
    assert written == sum(line.result() == () for line in lines)


async def test_a_tripped_account_gets_one_trial_at_a_time_and_others_go_on(
    house: AsyncEngine,
) -> None:
    async def outcome(kind: Outcome, now: datetime) -> None:
        await transact(house, lambda conn: record_outcome(conn, "kraken", "main", kind, 10, now))

    for _ in range(3):
        await outcome(Outcome.UNKNOWN, NOW)
    async with house.connect() as conn:
        assert not await venue_is_open(conn, "kraken", "main", NOW)
        assert await venue_is_open(conn, "binance", "main", NOW)
    assert names(await ordered(house, "a", [proposed()])) == [Violation.VENUE_TRIPPED]
    assert await ordered(house, "b", [proposed("binance")]) == ()

    rested = NOW + timedelta(seconds=10)
    async with house.connect() as conn:
        assert await venue_is_open(conn, "kraken", "main", rested)
    two = await ordered(house, "c", [proposed(), proposed()], now=rested)
    assert names(two) == [Violation.VENUE_TRIPPED]
    # Nobody writes down a trial before all have looked whether there is one.
    async with house.connect() as holding, asyncio.TaskGroup() as group:
        await holding.execute(select(venue_health).with_for_update())
        tasks = [
            # Of desks of their own, so that no desk's lock keeps them apart.
            group.create_task(
                ordered(house, f"d{n}", [replace(proposed(), desk=f"d{n}")], now=rested)
            )
            for n in range(3)
        ]
        await until_waiting(house, 3)
        await holding.rollback()
    assert sum(task.result() == () for task in tasks) == 1

    await outcome(Outcome.ANSWERED, rested)
    assert await ordered(house, "d", [proposed(), proposed()], now=rested) == ()
    async with house.connect() as conn:
        ((venue, account, breaker),) = await list_breakers(conn)
    assert (venue, account, breaker.state) == ("kraken", "main", BreakerState.CLOSED)


async def test_outcomes_recorded_at_once_are_all_counted(house: AsyncEngine) -> None:
    async def record(number: int) -> None:
        now = NOW + timedelta(milliseconds=number)
        await transact(
            house, lambda conn: record_outcome(conn, "kraken", "main", Outcome.ANSWERED, 10, now)
        )

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(record(number))

    async with house.connect() as conn:
        ((_, _, breaker),) = await list_breakers(conn)
    assert len(breaker.samples) == 10


async def test_orders_of_another_desk_are_not_checked_as_this_ones(house: AsyncEngine) -> None:
    with pytest.raises(BadInput, match="several desks"):
        await transact(
            house, lambda conn: check_orders(conn, "prime", [proposed()], read_book, now=NOW)
        )
    assert (
        await transact(house, lambda conn: check_orders(conn, DESK, [], read_book, now=NOW)) == ()
    )
