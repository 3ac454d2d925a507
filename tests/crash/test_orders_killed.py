"""Order workers killed by SIGKILL at any moment: each want is at the venue once, with all its fills.

Worker, venue and database are processes of their own. A killed worker's lease is ended by hand, as
time would end it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from tests.crash.orderer import ASSETS
from venues.fills import list_fills
from venues.model import FINAL_STATES, NEVER_PLACED_STATES
from venues.orders import list_orders
from venues.simulator.testing import SimulatorProcess

REPOSITORY: Final = Path(__file__).absolute().parents[2]
ORDERS: Final = 60
KILLS: Final = 2
LIVES_MAX: Final = 12
SEED: Final = 11


async def lived(
    told: dict[str, Any], kill_after_s: float | None, module: str = "tests.crash.orderer"
) -> int:
    """Let a worker live, or kill it some time after it began to work; return how it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    await process.stdin.drain()
    if kill_after_s is not None and await process.stdout.readline():
        await asyncio.sleep(kill_after_s)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert process.returncode is not None
    return process.returncode


async def test_workers_killed_at_any_moment_leave_what_the_venue_did(
    engine: AsyncEngine,
    database: Database,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    random, ends = Random(SEED), Counter[int]()
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0") as sim:
        told = {
            "database": database.app_url,
            "url": sim.url,
            "ws_url": sim.ws_url,
            "api_key": sim.ready["api_key"],
            "secret": sim.ready["secret"],
            "orders": ORDERS,
        }
        for life in range(LIVES_MAX):
            kill_after_s = random.uniform(0.01, 0.25) if life < KILLS else None
            ends[await lived(told, kill_after_s)] += 1
            async with engine.begin() as conn:
                await conn.execute(text("UPDATE venues.venue_order SET lease_until = created_at"))
            if ends[0] and life >= KILLS:
                break
        true = (await asyncio.to_thread(sim.state))["accounts"]["desk"]
    async with engine.connect() as conn:
        orders = await list_orders(conn, "sim", "desk")
        fills = await list_fills(conn, "sim", "desk", "ETHUSDT")
    record_property("counts", f"order workers killed: {ends[-signal.SIGKILL]}, ends {dict(ends)}")

    true_ids = Counter(order["clientOrderId"] for order in true["orders"])
    by_id = {order.client_order_id: order for order in orders}
    assert ends[-signal.SIGKILL] > 0
    assert len(orders) == ORDERS
    assert {order.state for order in orders} <= FINAL_STATES
    assert max(true_ids.values()) == 1
    assert {o.client_order_id for o in orders if o.state not in NEVER_PLACED_STATES} == set(
        true_ids
    )
    assert len(fills) == len(true["fills"])
    for order in true["orders"]:
        executed = ASSETS["ETH"].parse(order["executedQty"])
        assert by_id[order["clientOrderId"]].executed_units == executed
    assert sum(fill.base_units for fill in fills) == sum(o.executed_units for o in orders)
