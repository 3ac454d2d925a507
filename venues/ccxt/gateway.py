"""One account at a Binance spot venue, through ccxt's own class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import ccxt.async_support as ccxt

from kernel.clock import Clock, to_unix_ms
from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.errors import NoInstrument
from marketdata.model import Instrument
from matching.model import TimeInForce
from venues.ccxt import normalise
from venues.ccxt.classify import (
    classify_placement,
    failure_of,
    says_no_such_order,
    says_nothing_to_cancel,
)
from venues.ccxt.endpoint import Credentials, Endpoint, point_at, settings
from venues.errors import VenueUnavailable
from venues.model import (
    Accepted,
    Capabilities,
    OrderReport,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    VenueBalance,
    VenueFill,
    VenueOrder,
)

FILLS_PAGE_MAX: Final = 1_000
ORDERS_PAGE_MAX: Final = 1_000

TIMES_IN_FORCE: Final = {
    TimeInForce.GTC: "GTC",
    TimeInForce.IOC: "IOC",
    TimeInForce.FOK: "FOK",
}

CAPABILITIES: Final = Capabilities(
    client_id_pattern=r"[.A-Z:/a-z0-9_-]{1,36}",
    client_ids_unique_for_ever=False,
    finds_by_client_id=True,
    trade_ids_unique_per="symbol",
    expiry="recv-window",
    book_rule="rest-snapshot+diff",
    has_dead_man_switch=False,
)

WRONG_SHAPE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What ccxt's parsers raise for JSON of a shape that they do not expect. It proves nothing."""

FAILURES: Final = (ccxt.BaseError, OSError, *WRONG_SHAPE)
"""How a call of ccxt ends when there is no answer that can be read."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where an account is and how patient we are with it.

    Attributes:
        venue, account: our codes, under which everything is recorded.
        assets: every asset that may be traded or charged there, by code.
        order_timeout: how long an order may take to be answered before its outcome is unknown.
    """

    venue: str
    account: str
    endpoint: Endpoint
    credentials: Credentials
    assets: Mapping[str, Asset]
    order_timeout: timedelta = timedelta(seconds=5)
    read_timeout: timedelta = timedelta(seconds=5)
    rate_limit: bool = True


class BinanceGateway:
    """See `venues.ports.VenueGateway`; made by `open_gateway`.

    One instance of ccxt sends orders, another one reads: whatever the reading one is told to do
    about errors can never send an order twice.
    """

    def __init__(self, wanted: GatewaySettings, clock: Clock) -> None:
        self._settings = wanted
        self._clock = clock
        self._ahead: timedelta | None = None
        self._loading = asyncio.Lock()
        self._trader = _instance(wanted, wanted.order_timeout)
        self._reader = _instance(wanted, wanted.read_timeout)

    @property
    def venue(self) -> str:
        """Return our code of the venue."""
        return self._settings.venue

    @property
    def account(self) -> str:
        """Return our code of the account."""
        return self._settings.account

    @property
    def capabilities(self) -> Capabilities:
        """Return what Binance spot can do."""
        return CAPABILITIES

    async def close(self) -> None:
        """Close the connections."""
        await self._trader.close()
        await self._reader.close()

    def venue_time(self, now: datetime) -> datetime:
        """Return the venue's time by the difference measured last; none yet: our own."""
        return now + (self._ahead or timedelta(0))

    async def synchronise(self) -> None:
        """Measure how far the venue's clock is ahead of ours, to half a round trip."""
        before = self._clock.now()
        theirs = await self.server_time()
        after = self._clock.now()
        self._ahead = theirs - (before + (after - before) / 2)

    async def server_time(self) -> datetime:
        """Return the venue's clock."""
        return normalise.moment(await self._read(self._reader.fetch_time()))

    async def instrument(self, symbol: str) -> Instrument:
        """Return the grid of a symbol, as the venue stated it when we connected."""
        await self._load()
        return self._readable(
            lambda: normalise.instrument(
                self._market(symbol)["info"], self._settings.assets, self.venue
            )
        )

    async def place(self, order: VenueOrder) -> Placement:
        """Send the order once; anything but a clear yes or no is unknown."""
        try:
            await self._load()
            market = self._market(order.symbol)
            base = self._base(market)
        except (VenueUnavailable, NoInstrument) as error:
            return PlacementRefused(f"not sent: {error}")
        try:
            answer = await self._trader.create_order(
                market["symbol"],
                "limit",
                order.side.value,
                order.quantity,
                order.price,
                _order_parameters(order),
            )
        except FAILURES as error:
            return classify_placement(failure_of(error))
        try:
            report = normalise.order_report(answer.get("info"), base)
        except BadInput as error:
            return PlacementUnknown(f"the answer cannot be read: {error}")
        if report.client_order_id != order.client_order_id:
            return PlacementUnknown(f"the answer speaks of order {report.client_order_id}")
        return Accepted(report)

    async def cancel(self, order: VenueOrder) -> OrderReport | None:
        """Ask for a cancel; None: no such order is open."""
        await self._load()
        market = self._market(order.symbol)
        try:
            answer = await self._trader.cancel_order(
                "", market["symbol"], {"clientOrderId": order.client_order_id}
            )
        except FAILURES as error:
            failure = failure_of(error)
            if says_nothing_to_cancel(failure):
                return None
            raise VenueUnavailable(failure.reason, where=self.venue) from error
        return self._report(answer, market)

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Return the order; None when the venue says that it has none of this id."""
        await self._load()
        market = self._market(symbol)
        try:
            answer = await self._reader.fetch_order(
                "", market["symbol"], {"clientOrderId": client_order_id}
            )
        except FAILURES as error:
            failure = failure_of(error)
            if says_no_such_order(failure):
                return None
            raise VenueUnavailable(failure.reason, where=self.venue) from error
        return self._report(answer, market)

    async def list_orders(self, symbol: str, since: datetime) -> list[OrderReport]:
        """Return open orders and those made since *since*."""
        await self._load()
        market = self._market(symbol)
        unified = market["symbol"]
        open_ones = await self._read(self._reader.fetch_open_orders(unified))
        recent = await self._read(
            self._reader.fetch_orders(unified, to_unix_ms(since), ORDERS_PAGE_MAX)
        )
        return [self._report(item, market) for item in (*open_ones, *recent)]

    async def fills(self, symbol: str, from_trade_id: str) -> list[VenueFill]:
        """Return a page of our trades from *from_trade_id* on, oldest first."""
        return await self._trades(symbol, {"fromId": from_trade_id})

    async def fills_of_order(self, symbol: str, venue_order_id: str) -> list[VenueFill]:
        """Return the trades of one order."""
        return await self._trades(symbol, {"orderId": venue_order_id})

    async def balances(self) -> list[VenueBalance]:
        """Return what the account holds of the assets that we know."""
        answer = await self._read(self._reader.fetch_balance())
        return self._readable(
            lambda: normalise.balances(answer["info"].get("balances"), self._settings.assets)
        )

    async def _trades(self, symbol: str, parameters: dict[str, Any]) -> list[VenueFill]:
        grid = await self.instrument(symbol)
        unified = self._market(symbol)["symbol"]
        rows = await self._read(
            self._reader.fetch_my_trades(unified, None, FILLS_PAGE_MAX, parameters)
        )
        found = self._readable(
            lambda: [
                normalise.trade(row["info"], grid, self._settings.assets, self.account)
                for row in rows
            ]
        )
        return sorted(found, key=lambda item: (len(item.trade_id), item.trade_id))

    def _report(self, answer: Any, market: Mapping[str, Any]) -> OrderReport:
        base = self._base(market)
        return self._readable(lambda: normalise.order_report(answer.get("info"), base))

    def _readable(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (BadInput, *WRONG_SHAPE) as error:
            raise VenueUnavailable(
                f"the answer cannot be read: {error}", where=self.venue
            ) from error

    def _market(self, symbol: str) -> Mapping[str, Any]:
        found = (self._reader.markets_by_id or {}).get(symbol)
        if not found:
            raise NoInstrument(f"{self.venue} has no symbol {symbol}")
        market: Mapping[str, Any] = found[0]
        return market

    def _base(self, market: Mapping[str, Any]) -> Asset:
        code = market["base"]
        if code not in self._settings.assets:
            raise NoInstrument(f"{code} is not a known asset")
        return self._settings.assets[code]

    async def _load(self) -> None:
        """Load the markets once; the trading instance is given what the reading one got."""
        async with self._loading:
            if self._trader.markets:
                return
            if self._ahead is None:
                await self.synchronise()
            await self._read(self._reader.load_markets())
            self._trader.set_markets(self._reader.markets, self._reader.currencies)

    async def _read(self, request: Awaitable[T]) -> T:
        try:
            return await request
        except FAILURES as error:
            raise VenueUnavailable(failure_of(error).reason, where=self.venue) from error


@asynccontextmanager
async def open_gateway(wanted: GatewaySettings, clock: Clock) -> AsyncIterator[BinanceGateway]:
    """Make a gateway and close its connections at the end; connects when it is first used."""
    gateway = BinanceGateway(wanted, clock)
    try:
        yield gateway
    finally:
        await gateway.close()


def _instance(wanted: GatewaySettings, timeout: timedelta) -> Any:
    exchange = ccxt.binance(
        settings(
            wanted.credentials,
            timeout_ms=timeout // timedelta(milliseconds=1),
            rate_limit=wanted.rate_limit,
        )
    )
    point_at(exchange, wanted.endpoint)
    return exchange


def _order_parameters(order: VenueOrder) -> dict[str, Any]:
    """Return what goes to the venue literally: texts and times as they stand in the row."""
    assert order.signed_at is not None
    return {
        "newClientOrderId": order.client_order_id,
        "timeInForce": TIMES_IN_FORCE[order.time_in_force],
        "quantity": order.quantity,
        "price": order.price,
        "timestamp": to_unix_ms(order.signed_at),
        "recvWindow": order.recv_window // timedelta(milliseconds=1),
    }
