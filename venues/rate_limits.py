"""How much a venue may be asked: pure buckets that decide, and a gate in front of the calls.

Every limit of the venue is a bucket (`BucketRule`). A request is admitted if all its buckets have
room; of the room, a part is kept for cancels, and a part of the rest for orders, so that reads can
never hold up orders, nor orders cancels. What the venue itself counts (its headers) overrides what
we counted; what it refuses closes the gate until the moment it named.

Units: weights are whole; inside, a bucket counts weight times its period in microseconds, so that a
steady refill stays exact.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, unique
from typing import Final

from kernel.clock import Clock
from venues.capabilities import BucketRule, CallClass, RateLimits, Refill
from venues.errors import VenueBusy

WAITING_MAX: Final = 256
"""Calls that may wait at a gate; one more is refused rather than queued without end."""
RETRY_AFTER_MAX: Final = timedelta(days=3)
"""The longest ban that Binance imposes."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@unique
class Priority(IntEnum):
    """Who goes first."""

    CANCEL = 0
    ORDER = 1
    EVIDENCE = 2
    """What clears up an unknown: it may use what orders may, and waits behind none that is held up."""
    READ = 3


PRIORITIES: Final = {
    CallClass.CANCEL: Priority.CANCEL,
    CallClass.CANCEL_ALL: Priority.CANCEL,
    CallClass.PLACE: Priority.ORDER,
    CallClass.FIND: Priority.EVIDENCE,
    CallClass.CLOCK: Priority.EVIDENCE,
}
"""Everything else is a read, unless who asks says otherwise."""


def priority_of(call: CallClass) -> Priority:
    """Return the place of a call in the queue, if nothing else is said."""
    return PRIORITIES.get(call, Priority.READ)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a limit has counted: `level` in weight times microseconds of its period, at `at`."""

    level: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Gauge:
    """The state of all limits of one key: buckets by name, and until when the venue wants quiet.

    Attributes:
        quiet_until: nothing is sent before.
        no_orders_until: no order is placed before; cancels and queries pass.
    """

    buckets: Mapping[str, Bucket]
    quiet_until: datetime = _EPOCH
    no_orders_until: datetime = _EPOCH


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be made; `gauge` has counted it."""

    gauge: Gauge


@dataclass(frozen=True, slots=True)
class NotYet:
    """The call has to wait, at least until `until`."""

    until: datetime


def empty(limits: RateLimits, now: datetime) -> Gauge:
    """Return the state of limits that nothing was counted against."""
    return Gauge({rule.name: Bucket(0, now) for rule in limits.buckets})


def admit(
    limits: RateLimits,
    gauge: Gauge,
    call: CallClass,
    now: datetime,
    priority: Priority | None = None,
) -> Admitted | NotYet:
    """Decide whether *call* may be made now; its *priority* decides about the reserves."""
    priority = priority_of(call) if priority is None else priority
    closed = gauge.quiet_until
    if call is CallClass.PLACE:
        closed = max(closed, gauge.no_orders_until)
    costs = limits.costs.get(call, {})
    waits = [closed] if closed > now else []
    counted = dict(gauge.buckets)
    for rule in limits.buckets:
        cost = costs.get(rule.name, 0)
        if not cost:
            continue
        bucket = _drained(rule, gauge.buckets[rule.name], now)
        room = rule.capacity - _reserved(rule, priority)
        # A call that costs more than its share is let in when the bucket is empty.
        limit = max(room, cost)
        unit = rule.period // _MICROSECOND
        if bucket.level + cost * unit > limit * unit:
            waits.append(_room_at(rule, bucket, (limit - cost) * unit, now))
        counted[rule.name] = Bucket(bucket.level + cost * unit, bucket.at)
    if waits:
        return NotYet(max(waits))
    return Admitted(Gauge(counted, gauge.quiet_until, gauge.no_orders_until))


def told(limits: RateLimits, gauge: Gauge, headers: Mapping[str, str], now: datetime) -> Gauge:
    """Take over what the venue says it has counted, where that is more than we have.

    Others may use the same key or address. Less is not believed: requests under way are not in it.
    """
    if not limits.buckets:
        return gauge
    said = {name.lower(): text for name, text in headers.items()}
    buckets = dict(gauge.buckets)
    for rule in limits.buckets:
        text = said.get(rule.used_header.lower(), "") if rule.used_header else ""
        if text.isdecimal():
            bucket = _drained(rule, buckets[rule.name], now)
            level = int(text) * (rule.period // _MICROSECOND)
            buckets[rule.name] = Bucket(max(bucket.level, level), bucket.at)
    return Gauge(buckets, gauge.quiet_until, gauge.no_orders_until)


def refused(
    limits: RateLimits,
    gauge: Gauge,
    headers: Mapping[str, str],
    now: datetime,
    *,
    only_orders: bool,
) -> Gauge:
    """Close the gate after a refusal for asking too much, until the time the venue named."""
    until = now + (retry_after(headers) or limits.back_off)
    if only_orders:
        return replace(gauge, no_orders_until=max(gauge.no_orders_until, until))
    return replace(gauge, quiet_until=max(gauge.quiet_until, until))


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return what ``Retry-After`` says, in seconds (RFC 9110, 10.2.3); a date is not understood."""
    text = next((v for name, v in headers.items() if name.lower() == "retry-after"), "")
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        return None
    return min(timedelta(seconds=int(text)), RETRY_AFTER_MAX)


def _reserved(rule: BucketRule, priority: Priority) -> int:
    match priority:
        case Priority.CANCEL:
            return 0
        case Priority.ORDER | Priority.EVIDENCE:
            return rule.cancel_reserve
        case Priority.READ:
            return rule.cancel_reserve + rule.order_reserve


def _drained(rule: BucketRule, bucket: Bucket, now: datetime) -> Bucket:
    """Return the bucket as it is at *now*; time that runs backwards changes nothing."""
    if now <= bucket.at:
        return bucket
    if rule.refill is Refill.WINDOW:
        return bucket if now < _window_end(rule, bucket.at) else Bucket(0, now)
    passed = (now - bucket.at) // _MICROSECOND
    return Bucket(max(0, bucket.level - passed * rule.capacity), now)


def _room_at(rule: BucketRule, bucket: Bucket, level: int, now: datetime) -> datetime:
    """Return when the bucket will have fallen to *level*."""
    if rule.refill is Refill.WINDOW:
        return _window_end(rule, max(bucket.at, now))
    surplus = bucket.level - level
    return max(bucket.at, now) + -(-surplus // rule.capacity) * _MICROSECOND


def _window_end(rule: BucketRule, at: datetime) -> datetime:
    return at + rule.period - (at - _EPOCH) % rule.period


@dataclass(slots=True)
class _Waiting:
    call: CallClass
    order: tuple[Priority, int]
    admitted: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One turn of a gate; a class, since every call takes one."""

    gate: RateGate
    call: CallClass
    priority: Priority
    patience: timedelta | None

    async def __aenter__(self) -> None:
        await self.gate.enter(self.call, self.priority, self.patience)

    async def __aexit__(self, *error: object) -> None:
        self.gate.leave()


class RateGate:
    """In front of all calls of one key: each waits for its turn, by priority, then by arrival.

    With *in_flight_max*, no more calls than that are under way at once; a nonce that must rise on
    arrival needs that to be one.
    """

    def __init__(
        self,
        limits: RateLimits,
        clock: Clock,
        *,
        waiting_max: int = WAITING_MAX,
        in_flight_max: int | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._gauge = empty(limits, clock.now())
        self._waiting: list[_Waiting] = []
        self._waiting_max = waiting_max
        self._in_flight = 0
        self._in_flight_max = in_flight_max
        self._arrivals = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def gauge(self) -> Gauge:
        """Return what is counted so far."""
        return self._gauge

    @property
    def waiting(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    def turn(
        self,
        call: CallClass,
        *,
        patience: timedelta | None = None,
        priority: Priority | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Wait until *call* may be made, at most *patience*, and count it.

        A *priority* other than the call's own is for a list that an order or a cancel hangs on.

        Raises:
            VenueBusy: too many calls wait, or the turn did not come in time.
        """
        return _Turn(self, call, priority_of(call) if priority is None else priority, patience)

    def heard(self, headers: Mapping[str, str]) -> None:
        """Take over the venue's own count from the headers of an answer."""
        self._gauge = told(self._limits, self._gauge, headers, self._clock.now())

    def back_off(self, headers: Mapping[str, str], *, only_orders: bool = False) -> None:
        """Close the gate: the venue said that it is asked too much."""
        now = self._clock.now()
        self._gauge = refused(self._limits, self._gauge, headers, now, only_orders=only_orders)

    def close(self) -> None:
        """Forget the alarm that is set for the next turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        """End a turn."""
        self._in_flight -= 1
        self._let_in()

    async def enter(self, call: CallClass, priority: Priority, patience: timedelta | None) -> None:
        """Begin a turn; see `turn`."""
        if self._passes_at_once(call, priority):
            return
        if len(self._waiting) >= self._waiting_max and not self._is_urgent(priority):
            raise VenueBusy(f"{len(self._waiting)} calls wait already")
        self._arrivals += 1
        order = (priority, self._arrivals)
        mine = _Waiting(call, order, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._waiting.sort(key=lambda item: item.order)
        self._let_in()
        seconds = None if patience is None else patience / timedelta(seconds=1)
        try:
            async with asyncio.timeout(seconds):
                await mine.admitted
        except TimeoutError as error:
            self._leave(mine)
            raise VenueBusy(f"the turn of a {call} did not come within {patience}") from error
        except asyncio.CancelledError:
            self._leave(mine)
            raise

    def _passes_at_once(self, call: CallClass, priority: Priority) -> bool:
        """Let a call in that overtakes nobody and finds room, as most do; tell whether it was."""
        if self._waiting or self._is_full():
            return False
        decision = admit(self._limits, self._gauge, call, self._clock.now(), priority)
        if isinstance(decision, NotYet):
            return False
        self._gauge = decision.gauge
        self._in_flight += 1
        return True

    def _is_full(self) -> bool:
        return self._in_flight_max is not None and self._in_flight >= self._in_flight_max

    def _is_urgent(self, priority: Priority) -> bool:
        """Cancels may wait in numbers of their own, so that a crowd of reads keeps none out."""
        cancels = sum(item.order[0] is Priority.CANCEL for item in self._waiting)
        return priority is Priority.CANCEL and cancels < self._waiting_max

    def _leave(self, mine: _Waiting) -> None:
        if mine in self._waiting:
            self._waiting.remove(mine)
        elif mine.admitted.done() and not mine.admitted.cancelled():
            self._in_flight -= 1  # it was let in at the very moment it went away
        self._let_in()

    def _let_in(self) -> None:
        """Let in whoever may go; of one priority nobody overtakes."""
        self.close()
        if not self._waiting:
            return
        now = self._clock.now()
        held_up: set[Priority] = set()
        soonest: datetime | None = None
        for item in list(self._waiting):
            if item.admitted.done():  # it gave up and has not left yet
                continue
            if self._is_full():
                return
            if item.order[0] in held_up:
                continue
            decision = admit(self._limits, self._gauge, item.call, now, item.order[0])
            if isinstance(decision, NotYet):
                held_up.add(item.order[0])
                soonest = decision.until if soonest is None else min(soonest, decision.until)
                continue
            self._gauge = decision.gauge
            self._waiting.remove(item)
            self._in_flight += 1
            item.admitted.set_result(None)
        if soonest is not None:
            wait_s = max(0.001, (soonest - now) / timedelta(seconds=1))
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._let_in)
