"""The calls of one key to one venue: each in its turn, watched, and signed with the venue's time.

Two instances of ccxt: one sends orders, the other one reads. Whatever is asked goes through `call`,
which waits for its turn at the gate, and learns from the answer how much more may be asked and whether
our clock is off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import ccxt.async_support as ccxt
import structlog

from kernel import tracing
from kernel.clock import Clock, to_unix_ns
from kernel.errors import BadInput
from venues.capabilities import CallClass, Capabilities, RateLimits
from venues.ccxt.classify import Failure, failure_of, refusal_kind, wants_fewer_orders
from venues.ccxt.clock import (
    UNMEASURED,
    ClockOffset,
    ClockPolicy,
    better,
    is_due,
    jumped,
    measured,
    require_believable,
)
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.instance import Exchange, asking, watching
from venues.ccxt.texts import moment
from venues.errors import VenueUnavailable
from venues.model import RefusalKind
from venues.rate_limits import Priority, RateGate

log = structlog.get_logger()

UNLIMITED: Final = RateLimits(buckets=(), costs={})

WRONG_SHAPE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What ccxt's parsers raise for JSON of a shape that they do not expect. It proves nothing."""

FAILURES: Final = (ccxt.BaseError, OSError, RuntimeError, AssertionError, *WRONG_SHAPE)
"""How a call of ccxt ends when there is no answer that can be read."""

T = TypeVar("T")


class Failed(Exception):
    """A call that failed, with what is known of why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Where a key is used and how patient we are with the venue.

    Attributes:
        venue: our code, for what is told to people.
        order_timeout, read_timeout: how long a request may take.
        turn_timeout: how long a call may wait for its turn, if it does not say so itself.
        rate_limit: whether the venue's limits are kept.
        credentials: None: only what is public can be asked.
        has_nonce_window: whether the key's requests may overtake each other on their way.
    """

    venue: str
    capabilities: Capabilities
    endpoint: Endpoint
    credentials: Credentials | None
    order_timeout: timedelta
    read_timeout: timedelta
    turn_timeout: timedelta
    rate_limit: bool
    has_nonce_window: bool
    clock_policy: ClockPolicy


class Connection:
    """See the module; `trader` and `reader` are instances of ccxt's class."""

    def __init__(self, wanted: ConnectionSettings, clock: Clock) -> None:
        self._settings = wanted
        self._record = wanted.capabilities
        self._clock = clock
        self.offset: ClockOffset | None = None
        self._clock_is_off = False
        self._measuring = asyncio.Lock()
        one_by_one = self._record.shares_nonce and not wanted.has_nonce_window
        self._gate = RateGate(
            self._record.limits if wanted.rate_limit else UNLIMITED,
            _VenueClock(self),
            in_flight_max=1 if one_by_one else None,
        )
        self.trader = self._instance(wanted.order_timeout)
        self.reader = self._instance(wanted.read_timeout)

    @property
    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return self._gate.waiting

    async def close(self) -> None:
        """Close the connections."""
        self._gate.close()
        await self.trader.close()
        await self.reader.close()

    def now(self) -> datetime:
        """Return our own time."""
        return self._clock.now()

    def venue_time(self, now: datetime) -> datetime:
        """Return the venue's time by the difference measured last; none yet: our own."""
        return now if self.offset is None else now + self.offset.ahead

    async def server_time(self) -> datetime:
        """Return the venue's clock, cut to its resolution."""
        _, theirs = await self._time()
        return theirs

    async def synchronise(self) -> None:
        """Measure how far the venue's clock is ahead of ours; the most exact of a few tries.

        Raises:
            VenueUnavailable: no answer, or a difference that nobody would believe.
        """
        async with self._measuring:
            await self._measure()

    async def keep_time(self) -> bool:
        """Measure if that is due; tell whether the difference then was not what it was taken for.

        Raises:
            VenueUnavailable: it was due and the venue did not say.
        """
        policy = self._settings.clock_policy
        async with self._measuring:
            if not self._clock_is_off and not is_due(self.offset, self._clock.now(), policy):
                return False
            before = self.offset or UNMEASURED
            return jumped(before, await self._measure(), policy)

    async def mend_clock(self) -> None:
        """Measure if the venue has refused our time; if that fails, whoever asks next is told."""
        if self._clock_is_off:
            try:
                await self.keep_time()
            except VenueUnavailable as error:
                log.warning(
                    "venue does not tell the time", venue=self._settings.venue, error=str(error)
                )

    async def ask(
        self,
        call: CallClass,
        request: Callable[[], Awaitable[T]],
        *,
        priority: Priority | None = None,
    ) -> T:
        """Make a call of which every failure says no more than that there is no answer."""
        try:
            return await self.call(call, request, priority=priority)
        except Failed as error:
            raise self.unavailable(error.failure) from error

    async def call(
        self,
        call: CallClass,
        request: Callable[[], Awaitable[T]],
        *,
        patience: timedelta | None = None,
        priority: Priority | None = None,
        after: Awaitable[object] | None = None,
        is_raw: bool = False,
    ) -> T:
        """Make a call in its turn and learn from the answer how much more may be asked.

        With *after* the request is made and signed, and waits for it before it goes out. With *is_raw* an
        order in the answer is left as the venue wrote it, under ``info``.

        Raises:
            Failed: there is no answer, or it is an error.
            VenueBusy: its turn did not come in time; nothing was sent.
        """
        wait = self._settings.turn_timeout if patience is None else patience
        async with self._gate.turn(call, patience=wait, priority=priority):
            with tracing.calling(f"venue {call}"), watching(after, is_raw=is_raw) as seen:
                try:
                    answer = await request()
                except FAILURES as error:
                    failure = failure_of(
                        error, signed=seen.signed, status=seen.status, body=seen.body
                    )
                    self._learn(failure, seen)
                    raise Failed(failure) from error
            self._gate.heard(seen.headers)
            return answer

    def readable(self, read: Callable[[], T]) -> T:
        """Return what *read* makes of an answer; what cannot be read is no answer."""
        try:
            return read()
        except (BadInput, *WRONG_SHAPE) as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: Exception) -> VenueUnavailable:
        """Return the error of an answer that cannot be read."""
        return VenueUnavailable(f"the answer cannot be read: {error}", where=self._settings.venue)

    def unavailable(self, failure: Failure) -> VenueUnavailable:
        """Return the error of a failure that proves nothing."""
        return VenueUnavailable(failure.reason, where=self._settings.venue)

    async def _measure(self) -> ClockOffset:
        policy, where, found = self._settings.clock_policy, self._settings.venue, None
        resolution = self._record.wire.clock_resolution
        for _ in range(policy.samples_max):
            before, theirs = await self._time()
            found = better(found, measured(before, theirs, self._clock.now(), resolution))
            if found.error - resolution / 2 <= policy.error_max:
                break
        assert found is not None
        require_believable(found, policy, where=where)
        if jumped(self.offset, found, policy):
            log.warning("venue clock jumped", venue=where, ahead=str(found.ahead))
        self.offset, self._clock_is_off = found, False
        behind_ms = -found.ahead // timedelta(milliseconds=1)
        for exchange in (self.trader, self.reader):
            exchange.options["timeDifference"] = behind_ms
        return found

    async def _time(self) -> tuple[datetime, datetime]:
        """Return when we asked, which is after the wait for our turn, and what the venue said."""
        asked_at = self._clock.now()

        async def request() -> Any:
            nonlocal asked_at
            asked_at = self._clock.now()
            return await self.reader.fetch_time()

        answer = await self.ask(CallClass.CLOCK, request)
        return asked_at, self.readable(lambda: moment(answer))

    def _learn(self, failure: Failure, seen: Exchange) -> None:
        self._gate.heard(seen.headers)
        kind = refusal_kind(failure, self._record.errors)
        if kind is RefusalKind.CLOCK:
            self._clock_is_off = True
        if kind is RefusalKind.BACK_OFF and self._settings.rate_limit:
            fewer_orders = wants_fewer_orders(failure, self._record.errors)
            self._gate.back_off(seen.headers, only_orders=fewer_orders)
            log.warning("venue asks for less", venue=self._settings.venue, fault=failure.reason)

    def _instance(self, timeout: timedelta) -> Any:
        wanted = self._settings
        return asking(
            self._record,
            wanted.credentials,
            wanted.endpoint,
            timeout,
            self._clock,
            in_turn=not wanted.has_nonce_window,
        )


class _VenueClock:
    """The venue's time, by which its windows begin."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def now(self) -> datetime:
        return self._connection.venue_time(self._connection.now())

    def now_ns(self) -> int:
        """Return the same in nanoseconds since 1970."""
        return to_unix_ns(self.now())
