"""Limits as pure buckets, and the gate in front of the calls."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import ManualClock, SystemClock
from kernel.errors import BadInput
from venues.capabilities import BucketRule, CallClass, RateLimits, Refill
from venues.errors import VenueBusy
from venues.rate_limits import (
    PRIORITIES,
    Admitted,
    Gauge,
    NotYet,
    Priority,
    RateGate,
    admit,
    empty,
    refused,
    retry_after,
    told,
)
from venues.records import RECORDS

NOW = ManualClock().now()
SECOND = timedelta(seconds=1)
READ, PLACE, CANCEL = CallClass.BALANCES, CallClass.PLACE, CallClass.CANCEL


def limits(refill: Refill, *, capacity: int = 10, cancels: int = 2, orders: int = 3) -> RateLimits:
    rule = BucketRule(
        name="weight",
        capacity=capacity,
        period=10 * SECOND,
        refill=refill,
        cancel_reserve=cancels,
        order_reserve=orders,
        used_header="X-Used",
    )
    return RateLimits(
        buckets=(rule,), costs={call: {"weight": 1} for call in (READ, PLACE, CANCEL)}
    )


def filled(rules: RateLimits, call: CallClass, now: datetime) -> tuple[Gauge, int]:
    """Make as many calls of one class as are admitted at once."""
    gauge, made = empty(rules, now), 0
    while isinstance(decision := admit(rules, gauge, call, now), Admitted):
        gauge, made = decision.gauge, made + 1
    return gauge, made


@pytest.mark.parametrize("refill", Refill)
def test_reads_leave_room_for_orders_and_both_leave_room_for_cancels(refill: Refill) -> None:
    rules = limits(refill)
    gauge, reads = filled(rules, READ, NOW)
    orders = 0
    while isinstance(decision := admit(rules, gauge, PLACE, NOW), Admitted):
        gauge, orders = decision.gauge, orders + 1
    cancels = 0
    while isinstance(decision := admit(rules, gauge, CANCEL, NOW), Admitted):
        gauge, cancels = decision.gauge, cancels + 1

    assert (reads, orders, cancels) == (5, 3, 2)


CALLS = st.lists(
    st.tuples(
        st.sampled_from((READ, PLACE, CANCEL)),
        st.integers(min_value=0, max_value=7_000_000),
    ),
    max_size=60,
)


@given(calls=CALLS, refill=st.sampled_from(Refill))
def test_no_window_of_the_venue_ever_holds_more_than_its_capacity(
    calls: list[tuple[CallClass, int]], refill: Refill
) -> None:
    """Whatever is asked and when, the venue's own count stays within its limit."""
    rules, now = limits(refill), NOW
    (rule,) = rules.buckets
    gauge = empty(rules, now)
    made: list[datetime] = []
    for call, pause in calls:
        now += timedelta(microseconds=pause)
        decision = admit(rules, gauge, call, now)
        if isinstance(decision, Admitted):
            gauge = decision.gauge
            made.append(now)
    level, at = 0, NOW
    for moment in made:  # the venue's own reckoning, in the units of a bucket
        passed = (moment - at) // timedelta(microseconds=1)
        epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
        same_window = (moment - epoch) // rule.period == (at - epoch) // rule.period
        if refill is Refill.STEADY:
            level = max(0, level - passed * rule.capacity)
        elif not same_window:
            level = 0
        level, at = level + rule.period // timedelta(microseconds=1), moment
        assert level <= rule.capacity * (rule.period // timedelta(microseconds=1))


@given(calls=CALLS, refill=st.sampled_from(Refill))
def test_who_waits_until_the_named_time_is_let_in(
    calls: list[tuple[CallClass, int]], refill: Refill
) -> None:
    rules, now = limits(refill), NOW
    gauge = empty(rules, now)
    for call, pause in calls:
        now += timedelta(microseconds=pause)
        decision = admit(rules, gauge, call, now)
        if isinstance(decision, NotYet):
            assert decision.until > now
            now = decision.until
            decision = admit(rules, gauge, call, now)
        assert isinstance(decision, Admitted)
        gauge = decision.gauge


@given(reads=st.integers(min_value=0, max_value=200), refill=st.sampled_from(Refill))
def test_any_number_of_reads_and_orders_never_holds_up_a_cancel(reads: int, refill: Refill) -> None:
    rules = limits(refill)
    gauge = empty(rules, NOW)
    for number in range(reads):
        decision = admit(rules, gauge, READ if number % 2 else PLACE, NOW)
        gauge = decision.gauge if isinstance(decision, Admitted) else gauge

    assert isinstance(admit(rules, gauge, CANCEL, NOW), Admitted)


def test_the_venues_own_count_is_taken_over_when_it_is_higher() -> None:
    rules = limits(Refill.WINDOW)
    high = told(rules, empty(rules, NOW), {"x-used": "5"}, NOW)
    low = told(rules, high, {"X-USED": "1"}, NOW)
    odd = told(rules, low, {"X-Used": "many"}, NOW)

    assert isinstance(admit(rules, high, READ, NOW), NotYet)
    assert low == odd == high


def test_a_refusal_closes_the_gate_until_the_time_the_venue_named() -> None:
    rules = limits(Refill.STEADY)
    gauge = refused(rules, empty(rules, NOW), {"Retry-After": "30"}, NOW, only_orders=False)

    for call in (READ, PLACE, CANCEL):
        assert admit(rules, gauge, call, NOW) == NotYet(NOW + 30 * SECOND)
        assert isinstance(admit(rules, gauge, call, NOW + 30 * SECOND), Admitted)


def test_too_many_orders_close_the_gate_to_orders_only() -> None:
    rules = limits(Refill.STEADY)
    gauge = refused(rules, empty(rules, NOW), {}, NOW, only_orders=True)

    assert admit(rules, gauge, PLACE, NOW) == NotYet(NOW + rules.back_off)
    assert isinstance(admit(rules, gauge, CANCEL, NOW), Admitted)
    assert isinstance(admit(rules, gauge, READ, NOW), Admitted)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("7", 7 * SECOND),
        ("999999999", timedelta(days=3)),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_bounded(text: str, wait: timedelta | None) -> None:
    assert retry_after({"retry-after": text}) == wait


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_lets_every_call_in_sometime(name: str) -> None:
    rules = RECORDS[name].limits
    for call in CallClass:
        assert isinstance(admit(rules, empty(rules, NOW), call, NOW), Admitted)
    assert set(PRIORITIES.values()) == set(Priority) - {Priority.READ}


@pytest.mark.parametrize("costs", [{"weight": 99}, {"other": 1}, {"weight": -1}])
def test_a_cost_that_no_bucket_can_hold_is_refused(costs: dict[str, int]) -> None:
    rules = limits(Refill.STEADY)

    with pytest.raises(BadInput):
        replace(rules, costs={READ: costs})


@pytest.mark.parametrize(("cancels", "orders"), [(10, 0), (5, 5), (-1, 0)])
def test_reserves_leave_something_for_reads(cancels: int, orders: int) -> None:
    with pytest.raises(BadInput):
        limits(Refill.STEADY, cancels=cancels, orders=orders)


async def test_a_cancel_overtakes_everything_that_waits() -> None:
    gate = RateGate(limits(Refill.STEADY), SystemClock(), in_flight_max=1)
    done: list[CallClass] = []

    async def ask(call: CallClass) -> None:
        async with gate.turn(call):
            done.append(call)
            await asyncio.sleep(0)

    async with gate.turn(READ):
        async with asyncio.TaskGroup() as group:
            for call in (READ, READ, PLACE, CANCEL):
                group.create_task(ask(call))
                await asyncio.sleep(0)
            assert gate.waiting == 4
            group.create_task(_leave_soon())
            gate._in_flight -= 1  # the one that is under way ends
            gate._let_in()
        gate._in_flight += 1

    assert done == [CANCEL, PLACE, READ, READ]


async def _leave_soon() -> None:
    await asyncio.sleep(0)


async def test_a_full_queue_is_an_error_and_cancels_have_a_queue_of_their_own() -> None:
    gate = RateGate(limits(Refill.STEADY), SystemClock(), waiting_max=1, in_flight_max=1)

    async with gate.turn(READ):
        for call in (READ, CANCEL):
            with pytest.raises(VenueBusy, match="did not come"):
                async with gate.turn(call, patience=timedelta(0)):
                    pass
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_turn(gate, READ))
            await asyncio.sleep(0)
            with pytest.raises(VenueBusy, match="wait already"):
                await _turn(gate, READ, patience=timedelta(0))  # who queues is told something else
            cancelling = group.create_task(_turn(gate, CANCEL))
            await asyncio.sleep(0)
            assert gate.waiting == 2
            waiting.cancel()
            cancelling.cancel()
    async with gate.turn(READ):
        assert gate.waiting == 0


async def _turn(gate: RateGate, call: CallClass, patience: timedelta | None = None) -> None:
    async with gate.turn(call, patience=patience):
        pass


async def test_a_crowd_beyond_the_bound_is_refused_at_once_and_none_of_it_waits() -> None:
    gate = RateGate(limits(Refill.STEADY), SystemClock(), waiting_max=3, in_flight_max=1)
    refused_calls = 0
    async with gate.turn(READ), asyncio.TaskGroup() as group:
        crowd = [group.create_task(_turn(gate, READ)) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(20):
            try:
                await _turn(gate, READ, patience=timedelta(0))
            except VenueBusy as error:
                refused_calls += "wait already" in str(error)
        for task in crowd:
            task.cancel()

    assert refused_calls == 20


async def test_orders_that_are_held_up_do_not_hold_up_the_search_for_one() -> None:
    gate = RateGate(limits(Refill.STEADY), SystemClock())
    gate.back_off({"Retry-After": "60"}, only_orders=True)
    async with asyncio.TaskGroup() as group:
        order = group.create_task(_turn(gate, PLACE))
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await _turn(gate, CallClass.FIND)
            await _turn(gate, CallClass.CLOCK)
        assert gate.waiting == 1
        order.cancel()
    gate.close()


async def test_a_list_that_a_cancel_hangs_on_is_let_in_as_a_cancel() -> None:
    rules = limits(Refill.STEADY)
    gate = RateGate(rules, ManualClock())
    for call in (READ,) * 5 + (PLACE,) * 3:
        await _turn(gate, call)

    with pytest.raises(VenueBusy):
        await _turn(gate, READ, patience=timedelta(milliseconds=1))
    async with gate.turn(READ, patience=timedelta(milliseconds=1), priority=Priority.CANCEL):
        pass
    gate.close()


async def test_a_call_waits_until_the_bucket_has_room_again() -> None:
    rule = BucketRule(name="w", capacity=1, period=timedelta(milliseconds=40), refill=Refill.STEADY)
    rules = RateLimits(buckets=(rule,), costs={READ: {"w": 1}})
    clock = SystemClock()
    gate = RateGate(rules, clock)
    began = clock.now()

    for _ in range(3):
        async with gate.turn(READ):
            pass

    assert clock.now() - began >= timedelta(milliseconds=80)


async def test_the_gate_learns_from_headers_and_refusals() -> None:
    clock = ManualClock()
    gate = RateGate(limits(Refill.WINDOW), clock)
    gate.heard({"X-Used": "5"})
    with pytest.raises(VenueBusy):
        async with gate.turn(READ, patience=timedelta(milliseconds=1)):
            pass
    async with gate.turn(PLACE):
        pass
    gate.back_off({"Retry-After": "5"})
    with pytest.raises(VenueBusy):
        async with gate.turn(CANCEL, patience=timedelta(milliseconds=1)):
            pass
    clock.advance(timedelta(seconds=6))
    async with gate.turn(CANCEL):
        pass
    gate.close()
