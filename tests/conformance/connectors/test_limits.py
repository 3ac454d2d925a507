"""Limits as the venue enforces them: a crowd of reads is never refused, and a cancel waits for none."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conformance.connectors.bench import CLOCK, PATIENCE, Connector, settings_for
from tests.conformance.connectors.conftest import CONNECTORS
from tests.venues.in_thread import SimulatorThread
from venues.capabilities import CallClass
from venues.ccxt.gateway import GatewaySettings, open_gateway
from venues.errors import VenueBusy, VenueUnavailable
from venues.model import Accepted, VenueStatus
from venues.rate_limits import RateGate
from venues.simulator.testing import SimulatorProcess

READS = 400
"""More than any of the limits below lets through at once."""
TURN = timedelta(seconds=5)
"""How long the crowd waits at most: what is done before waited for none of it."""


def limited(
    name: str, sim: SimulatorProcess, turn: timedelta = timedelta(milliseconds=1_200)
) -> GatewaySettings:
    wanted = settings_for(name, sim)
    return replace(
        wanted,
        rate_limit=True,
        order_timeout=PATIENCE,
        read_timeout=PATIENCE,
        turn_timeout=turn,
    )


@pytest.mark.parametrize(("name", "cancels"), [("binance", 25), ("kraken", 3)])
async def test_a_crowd_of_reads_is_never_refused_and_holds_up_no_cancel(
    name: str, cancels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, symbol = CONNECTORS[name]
    refusals: list[object] = []

    def back_off(_: RateGate, headers: object, *, only_orders: bool = False) -> None:
        refusals.append((headers, only_orders))

    monkeypatch.setattr(RateGate, "back_off", back_off)
    arguments = ("--step-ms", "0", "--dialect", dialect, "--enforce-weight")
    with SimulatorThread(tmp_path / name, *arguments) as sim:
        async with open_gateway(limited(name, sim, TURN), CLOCK) as gateway:
            connector = Connector(name, sim, gateway, await gateway.instrument(symbol))
            orders = [connector.resting(quantity="0.05") for _ in range(cancels)]
            for order in orders:
                assert isinstance(await gateway.place(order), Accepted)
            ended: Counter[str] = Counter()

            async def read() -> None:
                try:
                    await gateway.fills(symbol, "")
                    ended["answered"] += 1
                except VenueBusy:
                    ended["waited too long"] += 1
                except VenueUnavailable as error:
                    ended[str(error)] += 1

            async with asyncio.TaskGroup() as group:
                crowd = [group.create_task(read()) for _ in range(READS)]
                await asyncio.sleep(0.3)  # what reads may use is gone
                began = CLOCK.now()
                cancelled = [await gateway.cancel(order) for order in orders]
                took = CLOCK.now() - began
                waiting = gateway.calls_waiting
                assert not all(task.done() for task in crowd)

    assert [report and report.status for report in cancelled] == [VenueStatus.CANCELLED] * cancels
    assert took < TURN
    assert waiting > 0
    assert set(ended) == {"answered", "waited too long"}
    assert ended.total() == READS
    assert refusals == []


async def test_what_others_used_is_learnt_from_the_headers(tmp_path: Path) -> None:
    """Two processes behind one address: what one has used, the other one sees and leaves alone."""
    with SimulatorThread(tmp_path / "binance", "--step-ms", "0", "--enforce-weight") as sim:
        second = CLOCK.now().second
        await asyncio.sleep(0 if second < 55 else 60 - second)  # the venue counts by the minute
        async with (
            open_gateway(settings_for("binance", sim), CLOCK) as greedy,
            open_gateway(limited("binance", sim), CLOCK) as careful,
        ):
            await careful.instrument("ETHUSDT")
            weight = careful.capabilities.limits.costs[CallClass.LIST_OPEN_ALL]["weight"]
            for _ in range(5_000 // weight):
                await greedy.cancel_all(None)
            await careful.server_time()

            with pytest.raises(VenueBusy):
                await careful.balances()
