"""The order machine: its edges in Python and in PostgreSQL, and what reports do to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.errors import BadInput
from kernel.money import Asset
from kernel.states import trigger_name, trigger_statements
from matching.model import Side, TimeInForce
from venues.dust import round_down, round_up
from venues.lifecycle import ResolvePolicy, Silence, states_after, weigh_silence
from venues.model import (
    DUST_SCALE,
    FINAL_STATES,
    OPEN_STATES,
    ORDER_STATES,
    OrderReport,
    OrderState,
    OrderTicket,
    VenueOrder,
    VenueStatus,
)
from venues.records import BINANCE

S = OrderState
V = VenueStatus
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

ORDER = VenueOrder(
    id=UUID(int=1),
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    instrument_version=1,
    side=Side.BUY,
    base_units=100,
    quantity="1",
    price="3000",
    time_in_force=TimeInForce.IOC,
    reference="test",
    intent="one",
    client_order_id="cw1",
    venue_order_id=None,
    state=S.SUBMITTING,
    state_reason="",
    signed_at=NOW,
    recv_window=timedelta(seconds=3),
    executed_units=0,
    created_at=NOW,
    updated_at=NOW,
    fence=1,
)


async def test_the_database_knows_the_same_edges_as_the_model(engine: AsyncEngine) -> None:
    function, _ = trigger_statements(ORDER_STATES)
    async with engine.connect() as conn:
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(ORDER_STATES)},
        )

    assert source == function.split("$$")[1]


async def test_postgresql_refuses_every_edge_the_model_does_not_have(
    owner_engine: AsyncEngine,
) -> None:
    insert = text(
        "INSERT INTO venues.venue_order (id, venue, account, symbol, instrument_version, side,"
        " kind, base_units, quantity, price, time_in_force, reference, intent, attempt,"
        " client_order_id, state, state_reason, signed_at, recv_window_ms, version, created_at,"
        " updated_at) VALUES (gen_random_uuid(), 'v', 'a', 's', 1, 'buy', 'limit', 1, '1', '1',"
        " 'ioc', '', 'i', 1, 'c', 'intent', '', now(), 1, 1, now(), now())"
    )
    update = text("UPDATE venues.venue_order SET state = :state")
    allowed = set()
    async with owner_engine.connect() as conn:
        await conn.execute(insert)
        await conn.commit()
        for current in S:
            await conn.execute(text("ALTER TABLE venues.venue_order DISABLE TRIGGER USER"))
            await conn.execute(update, {"state": str(current)})
            await conn.execute(text("ALTER TABLE venues.venue_order ENABLE TRIGGER USER"))
            await conn.commit()
            for new in set(S) - {current}:
                try:
                    await conn.execute(update, {"state": str(new)})
                except DBAPIError:
                    pass
                else:
                    allowed.add((current, new))
                await conn.rollback()

    assert allowed == ORDER_STATES.edges


def test_every_state_is_open_or_final_and_final_ones_are_left_by_nothing() -> None:
    assert frozenset(S) == FINAL_STATES | OPEN_STATES
    assert ORDER_STATES.terminal() == {str(state) for state in FINAL_STATES}
    assert ORDER_STATES.states == {str(state) for state in S}


@pytest.mark.parametrize(
    ("current", "status", "executed", "expected"),
    [
        (S.SUBMITTING, V.OPEN, 0, (S.ACKED,)),
        (S.SUBMITTING, V.OPEN, 40, (S.ACKED, S.PARTIALLY_FILLED)),
        (S.SUBMITTING, V.FILLED, 100, (S.ACKED, S.FILLED)),
        (S.SUBMITTING, V.EXPIRED, 0, (S.ACKED, S.EXPIRED)),
        (S.SUBMITTING, V.EXPIRED, 40, (S.ACKED, S.PARTIALLY_FILLED, S.EXPIRED)),
        (S.SUBMITTING, V.REJECTED, 0, (S.UNKNOWN, S.NOT_PLACED)),
        (S.UNKNOWN, V.FILLED, 100, (S.ACKED, S.FILLED)),
        (S.UNKNOWN, V.REJECTED, 0, (S.NOT_PLACED,)),
        (S.ESCALATED, V.CANCELLED, 0, (S.ACKED, S.CANCELLED)),
        (S.ACKED, V.OPEN, 0, ()),
        (S.ACKED, V.CANCELLED, 0, (S.CANCELLED,)),
        (S.PARTIALLY_FILLED, V.OPEN, 60, ()),
        (S.PARTIALLY_FILLED, V.CANCELLED, 60, (S.CANCELLED,)),
        (S.FILLED, V.OPEN, 0, ()),
        (S.NOT_PLACED, V.FILLED, 100, ()),
    ],
)
def test_a_report_leads_through_existing_edges_only(
    current: OrderState, status: VenueStatus, executed: int, expected: tuple[OrderState, ...]
) -> None:
    order = structs.replace(ORDER, state=current)
    report = OrderReport(
        client_order_id="cw1", venue_order_id="9", status=status, executed_units=executed
    )

    steps = states_after(order, report)

    assert steps == expected
    for before, after in zip((current, *steps), steps, strict=False):
        assert ORDER_STATES.allows(before, after)


def test_a_report_that_executed_less_than_is_known_is_late_and_changes_nothing() -> None:
    order = structs.replace(ORDER, state=S.PARTIALLY_FILLED, executed_units=60)
    late = OrderReport(
        client_order_id="cw1", venue_order_id="9", status=V.CANCELLED, executed_units=40
    )

    assert states_after(order, late) == ()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, Silence.MAY_STILL_COME),
        (3, Silence.MAY_STILL_COME),
        (5, Silence.MAY_STILL_COME),
        (6, Silence.COUNTS),
    ],
)
def test_silence_counts_only_after_the_window_and_the_margin(
    seconds: int, expected: Silence
) -> None:
    policy = ResolvePolicy(margin=timedelta(seconds=2))

    assert weigh_silence(ORDER, NOW + timedelta(seconds=seconds), policy, BINANCE) is expected


def test_the_same_ticket_has_the_same_client_order_id_for_ever() -> None:
    ticket = OrderTicket(
        venue="sim",
        account="desk",
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=1,
        quantity="1",
        price="1",
        time_in_force=TimeInForce.IOC,
        reference="r",
        intent="hedge/otc/ETH/7",
    )

    def named(of: OrderTicket) -> str:
        return BINANCE.client_id(of.named())

    assert named(ticket) == named(replace(ticket, price="2"))
    assert named(ticket) != named(replace(ticket, intent="hedge/otc/ETH/8"))
    assert named(ticket) != named(replace(ticket, attempt=2))


@given(
    whole=st.integers(0, 10**12),
    fraction=st.text("0123456789", max_size=20),
    scale=st.integers(0, 18),
)
def test_rounding_keeps_the_exact_figure_in_the_dust(whole: int, fraction: str, scale: int) -> None:
    text_amount = f"{whole}.{fraction}" if fraction else str(whole)
    asset = Asset("X", scale)
    places = scale + DUST_SCALE
    if len(fraction.rstrip("0")) > places:
        with pytest.raises(BadInput):
            round_up(text_amount, asset)
        return
    exact = int(str(whole) + fraction[:places].ljust(places, "0"))

    up, up_dust = round_up(text_amount, asset)
    down, down_dust = round_down(text_amount, asset)

    assert up * 10**DUST_SCALE - up_dust == exact == down * 10**DUST_SCALE + down_dust
    assert 0 <= up_dust < 10**DUST_SCALE
    assert 0 <= down_dust < 10**DUST_SCALE
