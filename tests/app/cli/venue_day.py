"""A desk's account at a simulated venue: its files in one folder, and orders through the order machine."""

from __future__ import annotations

import json
import os
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.house_file import read_house
from app.workers.venue_desk import VenueDesk, open_desk
from kernel.clock import SystemClock
from kernel.db import transact
from marketdata.instruments import record_instrument
from matching.model import Side, TimeInForce
from tests.venues.sending import send_alone
from venues.model import OrderTicket, VenueOrder
from venues.simulator.testing import SimulatorProcess

HOUSE = """\
chain = "evm"
book = 1
signer_socket = "signer.sock"
confirmations = "confirmations.json"
payout_depth = 6
start_height = 0
"""
SECTION = """
[[venue]]
venue = "binance"
account = "desk"
connector = "binance"
kek = "venues.kek"
symbols = ["ETHUSDT"]
http_url = "http://127.0.0.1:9001"
ws_url = "ws://127.0.0.1:9001"
"""
CLOCK = SystemClock()
BOOK = 1


@dataclass(frozen=True)
class Day:
    """One account at one venue, as the house file in *folder* describes it."""

    engine: AsyncEngine
    folder: Path
    venue: SimulatorProcess

    def write(self, section: str = SECTION) -> None:
        """Write the house file and the files of the API keys, as an operator would get them."""
        here = section.replace("http://127.0.0.1:9001", self.venue.url)
        (self.folder / "house.toml").write_text(
            HOUSE + here.replace("ws://127.0.0.1:9001", self.venue.ws_url)
        )
        for name, prefix in (("binance.json", ""), ("binance-withdrawals.json", "withdraw_")):
            found = {key: self.venue.ready[f"{prefix}{key}"] for key in ("api_key", "secret")}
            private(self.folder / name, json.dumps(found))

    @property
    def secrets(self) -> list[str]:
        """What no output may hold."""
        return [self.venue.ready[name] for name in ("secret", "withdraw_secret")]

    async def order(self, intent: str, price: str, time_in_force: TimeInForce) -> VenueOrder:
        """Buy 1 ETH at *price* or better."""
        (section,) = read_house(self.folder / "house.toml").venues
        async with self._desk(section.name) as desk:
            seen, now = await desk.gateway.instrument("ETHUSDT"), CLOCK.now()
            grid = await transact(self.engine, lambda conn: record_instrument(conn, seen, now=now))
            lots = grid.base.parse("1") // grid.lot
            ticket = OrderTicket(
                venue=section.venue,
                account=section.account,
                symbol="ETHUSDT",
                instrument_version=grid.version,
                side=Side.BUY,
                base_units=lots * grid.lot,
                quantity=grid.quantity_text(lots),
                price=grid.price_text(grid.ticks(price)),
                time_in_force=time_in_force,
                reference="test",
                intent=intent,
            )
            return await send_alone(
                self.engine,
                desk.gateway,
                ticket,
                recv_window=timedelta(seconds=3),
                holder="test",
                reason="a test",
                clock=CLOCK,
            )

    async def turn(self) -> None:
        """Follow orders, collect trades and post them, as the house's loop does."""
        async with self._desk("binance/desk") as desk:
            await desk.turn()

    def _desk(self, name: str) -> AbstractAsyncContextManager[VenueDesk]:
        sections = {item.name: item for item in read_house(self.folder / "house.toml").venues}
        return open_desk(self.engine, sections[name], book=BOOK, clock=CLOCK, chance=lambda: 0.0)


def private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
