"""One account at one venue, through ccxt's own class, as its capability record says.

One instance of ccxt sends orders, another one reads: whatever the reading one is told to do about
errors can never send an order twice. No line here asks for the venue's name.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from kernel.clock import Clock, to_unix_ms
from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.errors import NoInstrument
from marketdata.model import Instrument
from venues.capabilities import CallClass, CancelScope, Capabilities, Dialect, Proof
from venues.ccxt.agreement import disagreement, spellings_of
from venues.ccxt.classify import REASON_LENGTH_MAX, classify_placement, proves, refusal_kind
from venues.ccxt.clock import ClockOffset, ClockPolicy
from venues.ccxt.connection import WRONG_SHAPE, Connection, ConnectionSettings, Failed
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.generic import GenericReading
from venues.ccxt.kraken import KrakenReading
from venues.ccxt.lists import History, KrakenLists, Lists, Span, UnifiedLists
from venues.ccxt.markets import MARKETS_POLICY, Markets, MarketsPolicy
from venues.ccxt.normalise import BinanceReading
from venues.ccxt.reading import Reading
from venues.ccxt.requests import TYPES, placement, unsupported
from venues.ccxt.texts import mapping, rows, text_of
from venues.errors import VenueBusy, VenueUnavailable
from venues.lifecycle import listed_from
from venues.model import (
    Accepted,
    FillPage,
    KeyPermissions,
    OrderReport,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    RefusalKind,
    UnknownBalance,
    UnreadFill,
    VenueBalance,
    VenueFill,
    VenueOrder,
)
from venues.rate_limits import Priority

LISTED_BEFORE: Final = timedelta(seconds=5)
"""Lists are read from a little before an order was signed: clocks differ."""
RAW_LENGTH_MAX: Final = 2_000
CLOCK_POLICY: Final = ClockPolicy()

READINGS: Final[Mapping[Dialect, Reading]] = {
    Dialect.GENERIC: GenericReading(),
    Dialect.BINANCE: BinanceReading(),
    Dialect.KRAKEN: KrakenReading(),
}

LISTS: Final[Mapping[Dialect, Callable[[], Lists]]] = {
    Dialect.GENERIC: UnifiedLists,
    Dialect.BINANCE: UnifiedLists,
    Dialect.KRAKEN: KrakenLists,
}

PERMISSION_CALLS: Final = {
    Dialect.BINANCE: "sapiGetAccountApiRestrictions",
    Dialect.KRAKEN: "privatePostGetApiKeyInfo",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where an account is and how patient we are with it.

    Attributes:
        venue, account: our codes, under which everything is recorded.
        capabilities: the record of the venue.
        assets: every asset that may be traded or charged there, by code.
        order_timeout: how long an order may take to be answered before its outcome is unknown.
        turn_timeout: how long a call may wait for its turn: a little longer than a venue's minute.
        rate_limit: whether the venue's limits are kept; only a test may not want that.
        has_nonce_window: whether the key's requests may overtake each other on their way; if not,
            a venue with nonces is asked one thing at a time.
    """

    venue: str
    account: str
    capabilities: Capabilities
    endpoint: Endpoint
    credentials: Credentials
    assets: Mapping[str, Asset]
    order_timeout: timedelta = timedelta(seconds=5)
    read_timeout: timedelta = timedelta(seconds=5)
    turn_timeout: timedelta = timedelta(seconds=70)
    rate_limit: bool = True
    has_nonce_window: bool = False
    clock_policy: ClockPolicy = CLOCK_POLICY
    markets_policy: MarketsPolicy = MARKETS_POLICY


class CcxtGateway:
    """See `venues.ports.VenueGateway`; made by `open_gateway`."""

    def __init__(self, wanted: GatewaySettings, clock: Clock) -> None:
        self._settings = wanted
        self._record = wanted.capabilities
        self._reading = READINGS[wanted.capabilities.dialect]
        self._lists = LISTS[wanted.capabilities.dialect]()
        self._wire = Connection(
            ConnectionSettings(
                venue=wanted.venue,
                capabilities=wanted.capabilities,
                endpoint=wanted.endpoint,
                credentials=wanted.credentials,
                order_timeout=wanted.order_timeout,
                read_timeout=wanted.read_timeout,
                turn_timeout=wanted.turn_timeout,
                rate_limit=wanted.rate_limit,
                has_nonce_window=wanted.has_nonce_window,
                clock_policy=wanted.clock_policy,
            ),
            clock,
        )
        self._trader, self._reader = self._wire.trader, self._wire.reader
        self._markets = Markets(self._wire, wanted.venue, wanted.markets_policy)

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
        """Return what the venue can do."""
        return self._record

    @property
    def clock_offset(self) -> ClockOffset | None:
        """Return the difference of the clocks as it was measured last; None: not yet."""
        return self._wire.offset

    @property
    def calls_waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return self._wire.waiting

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    def venue_time(self, now: datetime) -> datetime:
        """Return the venue's time by the difference measured last; none yet: our own."""
        return self._wire.venue_time(now)

    async def synchronise(self) -> None:
        """Measure how far the venue's clock is ahead of ours."""
        await self._wire.synchronise()

    async def server_time(self) -> datetime:
        """Return the venue's clock, cut to its resolution."""
        return await self._wire.server_time()

    async def instrument(self, symbol: str) -> Instrument:
        """Return the grid of a symbol, as the venue stated it lately."""
        await self._prepare(symbol)
        market = self._markets.find(symbol)
        return self._wire.readable(
            lambda: self._reading.instrument(market, self._settings.assets, self.venue)
        )

    async def place(
        self, order: VenueOrder, *, after: Awaitable[object] | None = None
    ) -> Placement:
        """Send the order once, not before *after*; anything but a clear yes or no is unknown.

        If the difference of the clocks is too old it is measured first: an order that was signed by
        one that is not true any more is not sent.
        """
        if after is not None and self._record.shares_nonce:
            await after  # the key's other requests wait for this one's turn to end
            after = None
        try:
            await self._markets.load(order.symbol, by_schedule=False)
            market = self._markets.find(order.symbol)
            base = self._base(market)
            has_drifted = await self._wire.keep_time()
        except NoInstrument as error:
            return PlacementRefused(f"not sent: {error}")
        except VenueUnavailable as error:
            return PlacementRefused(f"not sent: {error}", RefusalKind.BACK_OFF)
        if has_drifted and self._record.wire.expiry_fields:
            return PlacementRefused("not sent: the clocks have drifted apart", RefusalKind.CLOCK)
        reason = unsupported(order, self._record)
        if reason is not None:
            return PlacementRefused(f"not sent: {reason}")
        try:
            answer = await self._wire.call(
                CallClass.PLACE,
                lambda: self._trader.create_order(
                    market["symbol"],
                    TYPES[order.kind],
                    order.side.value,
                    order.quantity,
                    order.price,
                    placement(order, self._record),
                ),
                patience=order.recv_window,
                after=after,
                is_raw=self._reading.reads_raw_orders,
            )
        except VenueBusy as error:
            return PlacementRefused(f"not sent: {error}", RefusalKind.BACK_OFF)
        except Failed as error:
            found = classify_placement(error.failure, self._record.errors)
            if isinstance(found, PlacementRefused) and found.kind is RefusalKind.FINAL:
                self._markets.doubt()  # it may be off a grid that has changed
            return found
        try:
            report = self._reading.placed(mapping(answer), order, base)
            return Accepted(self._agreed(answer, report, order, market))
        except (BadInput, *WRONG_SHAPE) as error:
            return PlacementUnknown(f"the answer cannot be read: {error}"[:REASON_LENGTH_MAX])

    async def cancel(self, order: VenueOrder) -> OrderReport | None:
        """Ask for a cancel; None: no such order is open.

        Where the venue answers no more than that it will, the order is looked up. A cancel refused
        for its time is asked for once more by the right time: it can be asked for any number of times.
        """
        await self._markets.load(order.symbol, by_schedule=False)
        market = self._markets.find(order.symbol)
        await self._wire.mend_clock()
        try:
            answer = await self._ask_to_cancel(order, market)
        except Failed as error:
            if proves(error.failure, self._record.errors, Proof.NOTHING_TO_CANCEL):
                return None
            raise self._wire.unavailable(error.failure) from error
        row = self._wire.readable(lambda: mapping(answer))
        if row.get("status") is None and row.get("id") is None:
            return await self.find_order(order)
        # Some answers carry the id of the cancel; what was cancelled is our order all the same.
        report = replace(self._report(answer, market), client_order_id=order.client_order_id)
        return self._wire.readable(lambda: self._agreed(answer, report, order, market))

    async def _ask_to_cancel(self, order: VenueOrder, market: Mapping[str, Any]) -> Any:
        named = {"clientOrderId": order.client_order_id}

        async def request() -> Any:
            return await self._trader.cancel_order("", market["symbol"], dict(named))

        try:
            return await self._wire.call(CallClass.CANCEL, request)
        except Failed as error:
            if refusal_kind(error.failure, self._record.errors) is not RefusalKind.CLOCK:
                raise
        await self._wire.mend_clock()
        return await self._wire.call(CallClass.CANCEL, request)

    async def cancel_all(self, symbol: str | None) -> int:
        """Cancel every open order of the account, or of one symbol; return how many there were."""
        await self._markets.load(symbol, by_schedule=False)
        unified = None if symbol is None else self._markets.find(symbol)["symbol"]
        listing = CallClass.LIST_OPEN_ALL if unified is None else CallClass.LIST_OPEN
        found = await self._wire.ask(
            listing, lambda: self._reader.fetch_open_orders(unified), priority=Priority.CANCEL
        )
        symbols = self._wire.readable(
            lambda: sorted({text_of(mapping(row), "symbol") for row in found})
        )
        if not symbols:
            return 0
        if unified is None and self._record.wire.cancels_all_per is CancelScope.ACCOUNT:
            await self._cancel_everything(None)
        elif self._record.wire.cancels_all_per is CancelScope.SYMBOL:
            for name in symbols:
                await self._cancel_everything(name)
        else:
            for row in found:
                await self._cancel_listed(text_of(row, "id"), unified)
        return len(found)

    async def find_order(self, order: VenueOrder) -> OrderReport | None:
        """Return the order; None when the venue says that it has none of this id."""
        await self._prepare(order.symbol)
        market = self._markets.find(order.symbol)
        if not self._record.finds_by_client_id:
            return await self._find_listed(order)
        named = {"clientOrderId": order.client_order_id}
        try:
            answer = await self._wire.call(
                CallClass.FIND, lambda: self._reader.fetch_order("", market["symbol"], named)
            )
        except Failed as error:
            if proves(error.failure, self._record.errors, Proof.NO_SUCH_ORDER):
                return None
            raise self._wire.unavailable(error.failure) from error
        report = self._report(answer, market)
        return self._wire.readable(lambda: self._agreed(answer, report, order, market))

    async def list_orders(self, symbol: str, since: datetime) -> list[OrderReport]:
        """Return open orders and those made since *since*, all of them.

        Raises:
            VenueUnavailable: there are more than can be listed.
        """
        await self._prepare(symbol)
        market = self._markets.find(symbol)
        return await self._list_open(market, {}) + await self._list_ended(market, since)

    async def fills(self, symbol: str, cursor: str) -> FillPage:
        """Return a page of our trades from *cursor* on, oldest first."""
        grid = await self.instrument(symbol)
        market = self._markets.find(symbol)
        history = await self._listed(
            self._lists.history(self._reader, self._wire.ask, market, cursor, self._record)
        )
        return self._page(history, grid)

    async def fills_of_order(self, order: VenueOrder) -> list[VenueFill]:
        """Return the trades of one order."""
        if order.venue_order_id is None:
            return []
        grid = await self.instrument(order.symbol)
        market = self._markets.find(order.symbol)
        listed = await self._listed(
            self._lists.of_order(self._reader, self._wire.ask, market, order.venue_order_id)
        )
        assets, account = self._settings.assets, self.account
        found = self._wire.readable(
            lambda: [self._reading.fill(row, grid, assets, account) for row in listed]
        )
        strange = next((f for f in found if f.venue_order_id != order.venue_order_id), None)
        if strange is not None:
            raise VenueUnavailable(
                f"lists a trade of order {strange.venue_order_id} among those of another",
                where=self.venue,
            )
        return found

    async def balances(self) -> list[VenueBalance]:
        """Return what the account holds of the assets that we know."""
        await self._prepare()
        answer = await self._wire.ask(CallClass.BALANCES, self._reader.fetch_balance)
        return self._wire.readable(lambda: self._reading.balances(answer, self._settings.assets))

    async def unknown_balances(self) -> list[UnknownBalance]:
        """Return what the account holds of the assets that we do not know."""
        await self._prepare()
        answer = await self._wire.ask(CallClass.BALANCES, self._reader.fetch_balance)
        assets = self._settings.assets
        return self._wire.readable(lambda: self._reading.unknown_balances(answer, assets))

    async def permissions(self) -> KeyPermissions:
        """Return what the key may do; nobody knows where the venue cannot be asked."""
        await self._prepare()
        if not self._record.tells_key_permissions:
            return self._reading.permissions(None)
        call = getattr(self._reader, PERMISSION_CALLS[self._record.dialect])
        answer = await self._wire.ask(CallClass.KEY, call)
        return self._wire.readable(lambda: self._reading.permissions(answer))

    async def arm_dead_man(self, after: timedelta) -> bool:
        """Let the venue cancel everything *after* now; zero disarms; False: it has no such switch."""
        if not self._record.dead_man:
            return False
        await self._prepare()
        after_ms = after // timedelta(milliseconds=1)
        await self._wire.ask(
            CallClass.CANCEL_ALL, lambda: self._trader.cancel_all_orders_after(after_ms)
        )
        return True

    async def _cancel_everything(self, unified: str | None) -> None:
        try:
            await self._wire.call(
                CallClass.CANCEL_ALL, lambda: self._trader.cancel_all_orders(unified)
            )
        except Failed as error:
            if not proves(error.failure, self._record.errors, Proof.NOTHING_TO_CANCEL):
                raise self._wire.unavailable(error.failure) from error

    async def _cancel_listed(self, venue_order_id: str, unified: str | None) -> None:
        try:
            await self._wire.call(
                CallClass.CANCEL, lambda: self._trader.cancel_order(venue_order_id, unified)
            )
        except Failed as error:
            if not proves(error.failure, self._record.errors, Proof.NOTHING_TO_CANCEL):
                raise self._wire.unavailable(error.failure) from error

    async def _list_open(
        self,
        market: Mapping[str, Any],
        named: Mapping[str, str],
        priority: Priority | None = None,
    ) -> list[OrderReport]:
        listed = await self._wire.ask(
            CallClass.LIST_OPEN,
            lambda: self._reader.fetch_open_orders(market["symbol"], None, None, dict(named)),
            priority=priority,
        )
        return self._reports(listed, market)

    async def _list_ended(
        self,
        market: Mapping[str, Any],
        since: datetime,
        client_order_id: str | None = None,
        priority: Priority | None = None,
    ) -> list[OrderReport]:
        span = Span(to_unix_ms(since), self._record.orders_page_max, client_order_id)

        async def ask(call: CallClass, request: Any) -> Any:
            return await self._wire.ask(call, request, priority=priority)

        listed = await self._listed(self._lists.ended(self._reader, ask, market, span))
        return self._reports(listed, market)

    async def _find_listed(self, order: VenueOrder) -> OrderReport | None:
        """Look for an order among the open ones, then among the ended.

        In this order, so that one which ends in between is in the second list.
        """
        market = self._markets.find(order.symbol)
        wanted, place = order.client_order_id, Priority.EVIDENCE
        reports = await self._list_open(market, {"clientOrderId": wanted}, place)
        found = next((r for r in reports if r.client_order_id == wanted), None)
        if found is None:
            since = listed_from(order, self.venue_time(order.created_at)) - LISTED_BEFORE
            ended = await self._list_ended(market, since, wanted, place)
            found = next((r for r in ended if r.client_order_id == wanted), None)
        if found is None:
            return None
        report = found
        return self._wire.readable(lambda: self._agreed({}, report, order, market))

    def _agreed(
        self, answer: Any, report: OrderReport, order: VenueOrder, market: Mapping[str, Any]
    ) -> OrderReport:
        """Return the report if it can be of our order.

        Raises:
            BadInput: it speaks of something else.
        """
        about = disagreement(report, order, mapping(answer).get("symbol"), spellings_of(market))
        if about is not None:
            raise BadInput(f"it speaks of {about}")
        return report

    async def _listed(self, listing: Awaitable[T]) -> T:
        """Await a list; what cannot be read of it is no list."""
        try:
            return await listing
        except (BadInput, *WRONG_SHAPE) as error:
            raise self._wire.unreadable(error) from error

    def _page(self, history: History, grid: Instrument) -> FillPage:
        found, unread = [], []
        for row in history.rows:
            try:
                found.append(self._reading.fill(row, grid, self._settings.assets, self.account))
            except (BadInput, *WRONG_SHAPE) as error:
                unread.append(self._unread(row, error))
        return FillPage(
            fills=tuple(found),
            cursor=history.cursor,
            is_last=history.is_last,
            unread=tuple(unread),
        )

    def _unread(self, row: Mapping[str, Any], error: Exception) -> UnreadFill:
        """Keep a trade that cannot be read, by its id; without one, the list is unreadable."""
        raw = row.get("info")
        trade_id = row.get("id") or (raw.get("id") if isinstance(raw, Mapping) else None)
        if not isinstance(trade_id, str | int):
            raise self._wire.unreadable(error) from error
        order_id = row.get("order")
        return UnreadFill(
            trade_id=str(trade_id),
            venue_order_id=order_id if isinstance(order_id, str) else None,
            reason=str(error)[:REASON_LENGTH_MAX],
            raw=json.dumps(raw, default=str)[:RAW_LENGTH_MAX],
        )

    def _reports(self, listed: Any, market: Mapping[str, Any]) -> list[OrderReport]:
        return [self._report(row, market) for row in self._wire.readable(lambda: rows(listed))]

    def _report(self, answer: Any, market: Mapping[str, Any]) -> OrderReport:
        base = self._base(market)
        return self._wire.readable(lambda: self._reading.order(mapping(answer), base))

    def _base(self, market: Mapping[str, Any]) -> Asset:
        code = market["base"]
        if code not in self._settings.assets:
            raise NoInstrument(f"{code} is not a known asset")
        return self._settings.assets[code]

    async def _prepare(self, symbol: str | None = None) -> None:
        """Have the markets and a difference of the clocks that are not too old."""
        await self._markets.load(symbol)
        await self._wire.keep_time()


@asynccontextmanager
async def open_gateway(wanted: GatewaySettings, clock: Clock) -> AsyncIterator[CcxtGateway]:
    """Make a gateway and close its connections at the end; connects when it is first used."""
    gateway = CcxtGateway(wanted, clock)
    try:
        yield gateway
    finally:
        await gateway.close()
