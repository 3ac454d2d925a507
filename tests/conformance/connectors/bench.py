"""A connector under test: a gateway made from a record, and the simulator it is connected to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any, Final

from kernel.clock import SystemClock
from kernel.money import Asset
from kernel.settings import Secret
from marketdata.model import Instrument
from matching.model import Side, TimeInForce
from venues.capabilities import Capabilities
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings
from venues.model import OrderKind, OrderState, OrderTicket, VenueOrder
from venues.records import RECORDS
from venues.simulator.testing import SimulatorProcess

CLOCK: Final = SystemClock()
ASSETS: Final[Mapping[str, Asset]] = {
    asset.code: asset
    for asset in (
        Asset("ETH", 18),
        Asset("BTC", 8),
        Asset("USDT", 6),
        Asset("USD", 4),
        Asset("BNB", 8),
    )
}
PATIENCE: Final = timedelta(seconds=20)
"""Longer than an answer takes on any machine."""
WINDOW: Final = timedelta(seconds=5)

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Connector:
    """What a card works with; `symbol` is the venue's own name of the market."""

    name: str
    sim: SimulatorProcess
    gateway: CcxtGateway
    grid: Instrument

    @property
    def record(self) -> Capabilities:
        """The capability record, by which cards differ."""
        return self.gateway.capabilities

    def order(self, **changes: Any) -> VenueOrder:
        """Return an order that takes the ask at once, signed now, unless told otherwise."""
        number = next(_numbers)
        price = changes.pop("price", "3300")
        quantity = changes.pop("quantity", "1")
        units = self.grid.base.parse(quantity)
        wanted = {
            "venue": "sim",
            "account": "desk",
            "symbol": self.grid.symbol,
            "instrument_version": 1,
            "side": Side.BUY,
            "base_units": units,
            "quantity": self.grid.quantity_text(units // self.grid.lot),
            "price": None if price is None else self.grid.price_text(self.grid.ticks(price)),
            "time_in_force": TimeInForce.IOC,
            "reference": "card",
            "intent": f"{self.name}-{number}",
            **changes,
        }
        return signed(OrderTicket(**wanted), self.gateway)

    def resting(self, **changes: Any) -> VenueOrder:
        """Return an order that stays in the book."""
        return self.order(
            **{"price": "2000", "time_in_force": TimeInForce.GTC, "quantity": "0.1", **changes}
        )

    def post_only(self, price: str) -> VenueOrder:
        """Return an order that must not take."""
        return self.resting(kind=OrderKind.POST_ONLY, price=price)


def signed(ticket: OrderTicket, gateway: CcxtGateway) -> VenueOrder:
    """Return the row of *ticket* as it is when it is about to be sent."""
    now = CLOCK.now()
    at = gateway.venue_time(now)
    return VenueOrder(
        id=ticket.order_id(now),
        venue=ticket.venue,
        account=ticket.account,
        symbol=ticket.symbol,
        instrument_version=ticket.instrument_version,
        kind=ticket.kind,
        side=ticket.side,
        base_units=ticket.base_units,
        quantity=ticket.quantity,
        price=ticket.price,
        time_in_force=ticket.time_in_force,
        reference=ticket.reference,
        intent=ticket.intent,
        attempt=ticket.attempt,
        client_order_id=gateway.capabilities.client_id(ticket.named()),
        venue_order_id=None,
        state=OrderState.SUBMITTING,
        state_reason="",
        signed_at=at.replace(microsecond=at.microsecond // 1_000 * 1_000),
        recv_window=gateway.capabilities.window(WINDOW),
        executed_units=0,
        created_at=now,
        updated_at=now,
        fence=0,
    )


def settings_for(name: str, sim: SimulatorProcess, **changes: Any) -> GatewaySettings:
    """Return the settings of a connector; *changes* are of its record."""
    return GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=replace(RECORDS[name], **changes),
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets=ASSETS,
        order_timeout=PATIENCE,
        read_timeout=PATIENCE,
        rate_limit=False,
    )
