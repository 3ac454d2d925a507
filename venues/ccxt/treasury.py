"""The money side of one account at one venue, through ccxt's own class.

Two instances of ccxt, as for orders: one that only sends withdrawals, never twice, and one that reads.
Its credentials can withdraw; those that trade are others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import structlog

from kernel.clock import Clock, to_unix_ms
from kernel.errors import BadInput
from kernel.money import Asset
from venues.capabilities import CallClass, Capabilities
from venues.ccxt.classify import REASON_LENGTH_MAX, Failure, failure_of, refusal_kind
from venues.ccxt.clock import ClockPolicy, measured, require_believable
from venues.ccxt.connection import FAILURES, WRONG_SHAPE
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.instance import asking, watching
from venues.ccxt.nonce import nonce_source
from venues.ccxt.texts import mapping, moment
from venues.ccxt.treasury_wires import (
    AT,
    CODE,
    Assets,
    is_writable,
    raw_rows,
    require_writable,
    wire_of,
)
from venues.errors import VenueBusy, VenueUnavailable
from venues.model import RefusalKind
from venues.rate_limits import RateGate
from venues.treasury_model import (
    DepositRecord,
    TreasuryCapabilities,
    VenueAddress,
    VenueNetwork,
    WithdrawalAccepted,
    WithdrawalPlacement,
    WithdrawalRecord,
    WithdrawalRefused,
    WithdrawalTicket,
    WithdrawalUnknown,
)

log = structlog.get_logger()

CLOCK_POLICY: Final = ClockPolicy()
MILLISECOND: Final = timedelta(milliseconds=1)
PATIENCE: Final = timedelta(seconds=30)
"""How long a call waits for its turn, at most."""
SPAN_MAX: Final = timedelta(days=80)
"""The longest span of a list that is asked for at once: Binance answers up to 90 days."""
PAGES_MAX: Final = 40
"""Pages of one list that are read for one answer, at most."""
AHEAD_MAX: Final = timedelta(minutes=10)
"""How much later than now a row may be dated."""
A_SECOND_MS: Final = 1_000
"""Some venues date rows to the second."""
T = TypeVar("T")
R = TypeVar("R", WithdrawalRecord, DepositRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreasurySettings:
    """Where an account is and how patient we are with it.

    Attributes:
        venue, account: our codes, under which everything is recorded.
        capabilities: the record of the venue.
        credentials: of a key that can withdraw; not the one that trades.
        assets: every asset that may be moved there, by code.
        withdraw_timeout: how long a request may take before its outcome is unknown.
    """

    venue: str
    account: str
    capabilities: Capabilities
    endpoint: Endpoint
    credentials: Credentials
    assets: Mapping[str, Asset]
    withdraw_timeout: timedelta = timedelta(seconds=10)
    read_timeout: timedelta = timedelta(seconds=10)


class _Failed(Exception):
    """A call that failed, with what is known of why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class _TooLate(Exception):
    """The window of a request is over before it was sent."""


class CcxtTreasury:
    """See `venues.treasury_ports.VenueTreasury`; made by `open_treasury`."""

    def __init__(self, wanted: TreasurySettings, clock: Clock) -> None:
        self._settings = wanted
        self._record = wanted.capabilities
        self._wire = wire_of(wanted.capabilities)
        self._errors = self._wire.errors(wanted.capabilities)
        self._clock = clock
        self._ahead: timedelta | None = None
        # One at a time, so that rising numbers arrive in their order.
        self._gate = RateGate(wanted.capabilities.limits, clock, in_flight_max=1)
        self._loading = asyncio.Lock()
        self._sender = self._instance(wanted.withdraw_timeout)
        self._reader = self._instance(wanted.read_timeout)

    @property
    def venue(self) -> str:
        """Return our code of the venue."""
        return self._settings.venue

    @property
    def account(self) -> str:
        """Return our code of the account."""
        return self._settings.account

    @property
    def capabilities(self) -> TreasuryCapabilities:
        """Return what the treasury can do."""
        return self._wire.can

    async def close(self) -> None:
        """Close the connections."""
        self._gate.close()
        await self._sender.close()
        await self._reader.close()

    def venue_time(self, now: datetime) -> datetime:
        """Return the venue's time by the difference measured last; none yet: our own."""
        return now + (self._ahead or timedelta(0))

    async def synchronise(self) -> None:
        """Measure how far the venue's clock is ahead of ours, to half a round trip.

        Raises:
            VenueUnavailable: no answer, or a difference that nobody would believe.
        """
        before = self._clock.now()
        theirs = await self.server_time()
        found = measured(before, theirs, self._clock.now(), self._record.wire.clock_resolution)
        require_believable(found, CLOCK_POLICY, where=self.venue)
        self._ahead = found.ahead
        for exchange in (self._sender, self._reader):
            exchange.options["timeDifference"] = -found.ahead // MILLISECOND

    async def server_time(self) -> datetime:
        """Return the venue's clock, cut to its resolution."""
        answer = await self._ask(self._reader.fetch_time)
        return self._readable(lambda: moment(answer))

    async def networks(self, asset: str) -> list[VenueNetwork]:
        """Return the networks of an asset, with what the venue charges and allows now."""
        await self._load()
        known = self._asset(asset)
        return await self._ask(lambda: self._wire.networks(self._reader, known))

    async def deposit_address(self, asset: str, network: str) -> VenueAddress:
        """Return where the venue wants *asset* on *network* for this account."""
        await self._load()
        known = self._asset(asset)
        answer = await self._ask(lambda: self._wire.deposit_address(self._reader, known, network))
        return self._readable(lambda: require_writable(answer))

    async def withdraw(self, ticket: WithdrawalTicket) -> WithdrawalPlacement:
        """Ask for the withdrawal, once; anything but a clear yes or no is unknown.

        What its list would not be read for is not asked for: nobody could tell what became of it.
        """
        if ticket.asset not in self._settings.assets:
            return WithdrawalRefused(f"not sent: {ticket.asset} is not moved from {self.venue}")
        try:
            await self._load()
            more = await self._ask(lambda: self._wire.prepare(self._reader, ticket))
        except VenueUnavailable as error:
            return WithdrawalRefused(f"not sent: {error}"[:REASON_LENGTH_MAX])
        try:
            answer = await self._call(lambda: self._send(ticket, more))
        except VenueBusy as error:
            return WithdrawalRefused(f"not sent: {error}"[:REASON_LENGTH_MAX], RefusalKind.BACK_OFF)
        except _TooLate:
            return WithdrawalRefused("not sent: its window is over", RefusalKind.CLOCK)
        except _Failed as error:
            return self._judge(error.failure)
        try:
            ref = mapping(answer).get("id")
        except BadInput as error:
            return WithdrawalUnknown(f"the answer cannot be read: {error}")
        if not isinstance(ref, str) or not is_writable(ref):
            return WithdrawalUnknown("the answer names no withdrawal")
        return WithdrawalAccepted(ref)

    async def _send(self, ticket: WithdrawalTicket, more: Mapping[str, Any]) -> Any:
        """Send the request in its turn, if its window is not over.

        Where a rising number ends a request, it is that of a moment within the window: whoever asks
        for the list after the window draws a higher one.
        """
        now = self._clock.now()
        if self.venue_time(now) > ticket.signed_at + ticket.window:
            raise _TooLate
        if self._record.shares_nonce:
            source = nonce_source(self._settings.credentials.api_key)
            self._sender.incrementing_nonce = lambda: source.next(to_unix_ms(now))
        return await self._sender.withdraw(ticket.asset, ticket.text, ticket.address, dict(more))

    async def list_withdrawals(self, since: datetime) -> list[WithdrawalRecord]:
        """Return every withdrawal asked for at *since* or later, whatever became of it."""
        found = await self._list(self._reader.fetch_withdrawals, since)
        return self._readable(lambda: self._read(found, self._wire.withdrawal))

    async def list_deposits(self, since: datetime) -> list[DepositRecord]:
        """Return every deposit that the venue noticed at *since* or later."""
        found = await self._list(self._reader.fetch_deposits, since)
        return self._readable(lambda: self._read(found, self._wire.deposit))

    def _read(
        self, found: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any], Assets], R]
    ) -> list[R]:
        """Read the rows of assets that we know; one that two pages hold is one record."""
        known = [row for row in found if row[CODE] in self._settings.assets]
        if len(known) < len(found):
            log.warning("venue moves an unknown asset", venue=self.venue, account=self.account)
        records: dict[str, R] = {}
        for row in known:
            item: R = require_writable(read(row, self._settings.assets))
            records[item.venue_ref] = item
        return list(records.values())

    async def _list(
        self, fetch: Callable[..., Awaitable[Any]], since: datetime
    ) -> list[Mapping[str, Any]]:
        """Return the raw rows of a list, all of them: some twice, where pages meet.

        Venues tell the newest rows of a span, which may not be longer than `SPAN_MAX`: each span is
        read from its end, until a page is not full.

        Raises:
            VenueUnavailable: more than `PAGES_MAX` pages, or more rows in a second than a page
                holds: then none of them counts.
        """
        await self._load()
        start, found = since, list[Mapping[str, Any]]()
        end = self.venue_time(self._clock.now()) + AHEAD_MAX
        pages = PAGES_MAX
        while start < end:
            until = min(end, start + SPAN_MAX)
            rows = await self._page(fetch, start, to_unix_ms(until))
            found += rows
            while len(rows) >= self._wire.page_max and pages > 0:
                pages -= 1
                again = await self._page(fetch, start, _oldest(rows) + A_SECOND_MS)
                if len(again) >= self._wire.page_max and _oldest(again) >= _oldest(rows):
                    pages = 0
                rows, found = again, found + again
            pages -= 1
            if pages < 0:
                raise VenueUnavailable(
                    f"lists more than can be read since {since.isoformat()}", where=self.venue
                )
            start = until
        return found

    async def _page(
        self, fetch: Callable[..., Awaitable[Any]], start: datetime, until_ms: int
    ) -> list[Mapping[str, Any]]:
        # The limit goes past ccxt, which would cut the newest rows off a page to keep it.
        more = {"until": until_ms, "limit": self._wire.page_max}
        answer = await self._ask(lambda: fetch(None, to_unix_ms(start), None, more))
        return [*self._readable(lambda: raw_rows(answer))]

    def _judge(self, failure: Failure) -> WithdrawalRefused | WithdrawalUnknown:
        """Return what a failed request proves, if anything: by the venue's own words."""
        if not failure.signed:
            return WithdrawalRefused(f"not sent: {failure.reason}"[:REASON_LENGTH_MAX])
        kind = refusal_kind(failure, self._errors)
        if kind is None:
            return WithdrawalUnknown(failure.reason)
        return WithdrawalRefused(failure.reason, kind)

    def _asset(self, code: str) -> Asset:
        if code not in self._settings.assets:
            raise BadInput(f"{code} is not moved to or from {self.venue}")
        return self._settings.assets[code]

    def _readable(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (BadInput, *WRONG_SHAPE) as error:
            raise VenueUnavailable(
                f"the answer cannot be read: {error}", where=self.venue
            ) from error

    async def _load(self) -> None:
        """Load what the venue calls its assets once; the sending instance is given the same."""
        async with self._loading:
            if self._sender.markets:
                return
            await self.synchronise()
            await self._ask(self._reader.load_markets)
            self._sender.set_markets(self._reader.markets, self._reader.currencies)

    async def _ask(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make a call of which every failure says no more than that there is no answer."""
        try:
            return await self._call(request)
        except _Failed as error:
            raise VenueUnavailable(error.failure.reason, where=self.venue) from error
        except BadInput as error:
            raise VenueUnavailable(error.what, where=self.venue) from error

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make a call in its turn, within the venue's limits, and hear what the venue says of them.

        Raises:
            VenueBusy: its turn did not come; nothing was sent.
        """
        async with self._gate.turn(CallClass.TREASURY, patience=PATIENCE):
            with watching() as seen:
                try:
                    answer = await request()
                except FAILURES as error:
                    failure = failure_of(
                        error, signed=seen.signed, status=seen.status, body=seen.body
                    )
                    self._gate.heard(seen.headers)
                    if refusal_kind(failure, self._errors) is RefusalKind.BACK_OFF:
                        self._gate.back_off(seen.headers)
                    raise _Failed(failure) from error
            self._gate.heard(seen.headers)
            return answer

    def _instance(self, timeout: timedelta) -> Any:
        wanted = self._settings
        return asking(self._record, wanted.credentials, wanted.endpoint, timeout, self._clock)


def _oldest(rows: Sequence[Mapping[str, Any]]) -> int:
    return min(int(row[AT]) for row in rows)


@asynccontextmanager
async def open_treasury(wanted: TreasurySettings, clock: Clock) -> AsyncIterator[CcxtTreasury]:
    """Make a treasury and close its connections at the end; connects when it is first used."""
    treasury = CcxtTreasury(wanted, clock)
    try:
        yield treasury
    finally:
        await treasury.close()
