"""A venue that has an order and answers no question about it, for longer than anybody waits.

On the wire, in both dialects: that is the only way for an order to end with a person.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.events import list_history
from marketdata.instruments import record_instrument
from tests.conformance.connectors.bench import settings_for
from tests.venues.conftest import QUICK, RECV_WINDOW, ticket
from tests.venues.in_thread import SimulatorThread
from venues.account_state import account_state
from venues.ccxt.gateway import open_gateway
from venues.fills import collect, filled_units
from venues.model import AccountMode, OrderState
from venues.orders import intend, resolve, resume, submit
from venues.store import get_order

CLOCK = SystemClock()
S = OrderState
HASTE = timedelta(milliseconds=600)
"""How long an answer is waited for that does not come."""
BINANCE_QUESTIONS = ("/api/v3/order", "/api/v3/openOrders", "/api/v3/allOrders")
KRAKEN_QUESTIONS = ("/0/private/OpenOrders", "/0/private/ClosedOrders", "/0/private/QueryOrders")


@pytest.mark.parametrize("silence", ["hang_before_accept", "status_503", "truncated_200"])
@pytest.mark.parametrize(
    ("name", "symbol", "placing", "asking", "questions"),
    [
        ("binance", "ETHUSDT", "/api/v3/order", "GET", BINANCE_QUESTIONS),
        ("kraken", "XETHZUSD", "/0/private/AddOrder", "POST", KRAKEN_QUESTIONS),
    ],
    ids=["binance", "kraken"],
)
async def test_an_order_is_escalated_only_while_every_answer_is_withheld_and_then_resolved(
    engine: AsyncEngine,
    tmp_path: Path,
    name: str,
    symbol: str,
    placing: str,
    asking: str,
    questions: tuple[str, ...],
    silence: str,
) -> None:
    with SimulatorThread(tmp_path / name, "--step-ms", "0", "--dialect", name) as sim:
        wanted = settings_for(name, sim)
        hasty = replace(wanted, order_timeout=HASTE, read_timeout=HASTE)
        async with open_gateway(hasty, CLOCK) as gateway, open_gateway(wanted, CLOCK) as patient:
            await patient.instrument(symbol)
            found = await gateway.instrument(symbol)
            record = partial(record_instrument, instrument=found, now=CLOCK.now())
            grid = await transact(engine, record)
            lots = grid.base.parse("0.1") // grid.lot
            intent = partial(
                intend,
                ticket=ticket(grid, lots=lots, price="3300"),
                capabilities=gateway.capabilities,
                recv_window=gateway.capabilities.window(RECV_WINDOW),
                actor="system:t",
                reason="a test",
                now=CLOCK.now(),
            )
            order = await transact(engine, intent)
            sim.fault("hang_after_accept", placing, method="POST")
            for path in questions:
                sim.fault(silence, path, method=asking, count=1_000)
            window = order.recv_window + (QUICK.margin or timedelta(0))
            # A pass that takes half as long as this, or longer, is taken for a pause of our own.
            policy = replace(QUICK, looks_max=1, escalate_after=window + timedelta(seconds=2))

            sent = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
            now = sent
            while now.state is S.UNKNOWN:
                async with engine.connect() as conn:
                    unknown = await account_state(conn, "sim", "desk")
                assert unknown.mode is AccountMode.ACTIVE
                now = await resolve(
                    engine, gateway, order.id, holder="t", clock=CLOCK, policy=policy
                )
            escalated, escalated_at = now, gateway.venue_time(CLOCK.now())
            async with engine.connect() as conn:
                account = await account_state(conn, "sim", "desk")
            still = await resume(engine, gateway, holder="t", clock=CLOCK, policy=policy)

            sim.control("DELETE", "faults")
            left = await resume(engine, patient, holder="t", clock=CLOCK, policy=policy)
            await collect(engine, patient, symbol, clock=CLOCK)
            truth = sim.state()["accounts"]["desk"]["orders"]

    async with engine.connect() as conn:
        at_last = await get_order(conn, order.id)
        filled = await filled_units(conn, at_last)
        history = await list_history(conn, "venue-order", order.id)
        after = await account_state(conn, "sim", "desk")
    assert (sent.state, escalated.state) == (S.UNKNOWN, S.ESCALATED)
    assert sent.signed_at is not None
    assert escalated_at > sent.signed_at + window
    assert account.mode is AccountMode.REDUCING
    assert [item.state for item in still] == [S.ESCALATED]
    assert left == []
    assert at_last.state is S.FILLED
    assert filled == at_last.executed_units == order.base_units
    assert [item.to_state for item in history].count("escalated") == 1
    assert after.mode is AccountMode.REDUCING  # until a person says otherwise
    assert sum(o["clientOrderId"] == order.client_order_id for o in truth) == 1
