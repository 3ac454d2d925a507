"""The circuit breaker of a venue's account: closed, open, half-open. Pure.

It looks at the last outcomes within a window, at most `SAMPLES_MAX` of them. Too many failures, too
many unknown outcomes or too many slow answers trip it. It rests, longer each time it trips again, and
then lets one order try: if that is answered in time it closes, else it rests again.

The pattern is M. Nygard's (*Release It!*, 2nd edition, 2018, section "Circuit Breaker").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from kernel.states import StateTable
from risk.model import Outcome

PPM: Final = 1_000_000
SAMPLES_MAX: Final = 64
DOUBLINGS_MAX: Final = 6


@unique
class BreakerState(StrEnum):
    """Whether orders go to a venue's account."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They do not, until it has rested."""
    HALF_OPEN = "half-open"
    """One may try, and nothing else until its outcome is known."""


BREAKER_STATES: Final = StateTable(
    schema="risk",
    table="venue_health",
    initial=frozenset({BreakerState.CLOSED}),
    edges=frozenset(
        {
            (BreakerState.CLOSED, BreakerState.OPEN),
            (BreakerState.OPEN, BreakerState.HALF_OPEN),
            (BreakerState.HALF_OPEN, BreakerState.OPEN),
            (BreakerState.HALF_OPEN, BreakerState.CLOSED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When it trips and how long it rests.

    Attributes:
        window: outcomes older than this do not count.
        samples_min: outcomes within the window before a share of them says anything.
        failed_ppm: the share of failed and unknown ones from which on it trips.
        unknown_max: unknown ones within the window beyond which it trips, however few the samples.
        slow_ms: an answer that took longer than this is slow.
        slow_ppm: the share of slow ones from which on it trips.
        rest: how long it is open after the first trip; doubled by every further one.
        trial: how long the one order of a half-open breaker may be without an outcome.
    """

    window: timedelta = timedelta(minutes=1)
    samples_min: int = 5
    failed_ppm: int = 500_000
    unknown_max: int = 2
    slow_ms: int = 2_000
    slow_ppm: int = 500_000
    rest: timedelta = timedelta(seconds=10)
    trial: timedelta = timedelta(seconds=30)


DEFAULT_BREAKER: Final = BreakerPolicy()


@dataclass(frozen=True, slots=True)
class Sample:
    """One outcome, with what it took in milliseconds."""

    at: datetime
    outcome: Outcome
    latency_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Where a breaker is.

    Attributes:
        since: when it came into the state.
        trips: how often it tripped without closing in between.
        trial_at: when the order that tries was let through; None: none is under way.
    """

    state: BreakerState
    since: datetime
    trips: int = 0
    trial_at: datetime | None = None
    reason: str = ""
    samples: tuple[Sample, ...] = ()


def rest_until(breaker: Breaker, policy: BreakerPolicy) -> datetime:
    """Return until when an open breaker lets nothing through."""
    doublings = min(max(breaker.trips - 1, 0), DOUBLINGS_MAX)
    return breaker.since + policy.rest * (1 << doublings)


def may_pass(breaker: Breaker, policy: BreakerPolicy, *, now: datetime) -> bool:
    """Tell whether an order may go to the venue now."""
    match breaker.state:
        case BreakerState.CLOSED:
            return True
        case BreakerState.OPEN:
            return now >= rest_until(breaker, policy)
        case BreakerState.HALF_OPEN:
            return breaker.trial_at is None or now >= breaker.trial_at + policy.trial


def pass_one(breaker: Breaker, policy: BreakerPolicy, *, now: datetime) -> Breaker | None:
    """Return the breaker after one order went through; None: it may not."""
    if not may_pass(breaker, policy, now=now):
        return None
    if breaker.state is BreakerState.CLOSED:
        return breaker
    since = now if breaker.state is BreakerState.OPEN else breaker.since
    return replace(breaker, state=BreakerState.HALF_OPEN, since=since, trial_at=now)


def after(breaker: Breaker, sample: Sample, policy: BreakerPolicy) -> Breaker:
    """Return the breaker after an outcome.

    An open one learns nothing: what ends now was sent before it tripped. A half-open one takes the
    first outcome as that of its trial; if it was of an older order, it was no better evidence.
    """
    samples = _within((*breaker.samples, sample), policy, sample.at)
    match breaker.state:
        case BreakerState.OPEN:
            return replace(breaker, samples=samples)
        case BreakerState.HALF_OPEN:
            return _after_trial(breaker, sample, policy)
        case BreakerState.CLOSED:
            why = _why_trip(samples, policy)
            kept = replace(breaker, samples=samples)
            return kept if why is None else _tripped(kept, why, sample.at)


def _within(
    samples: tuple[Sample, ...], policy: BreakerPolicy, now: datetime
) -> tuple[Sample, ...]:
    young = tuple(item for item in samples if item.at > now - policy.window)
    return young[-SAMPLES_MAX:]


def _after_trial(breaker: Breaker, sample: Sample, policy: BreakerPolicy) -> Breaker:
    if sample.outcome is Outcome.ANSWERED and sample.latency_ms <= policy.slow_ms:
        return Breaker(state=BreakerState.CLOSED, since=sample.at, samples=(sample,))
    return _tripped(breaker, f"the trial was {_told(sample)}", sample.at)


def _tripped(breaker: Breaker, why: str, at: datetime) -> Breaker:
    # What tripped it is told in the reason; it begins anew when it closes.
    return Breaker(state=BreakerState.OPEN, since=at, trips=breaker.trips + 1, reason=why)


def _told(sample: Sample) -> str:
    return str(sample.outcome) if sample.outcome is not Outcome.ANSWERED else "slow"


def _why_trip(samples: tuple[Sample, ...], policy: BreakerPolicy) -> str | None:
    unknown = sum(item.outcome is Outcome.UNKNOWN for item in samples)
    if unknown > policy.unknown_max:
        return f"{unknown} unknown outcomes"
    if len(samples) < policy.samples_min:
        return None
    bad = sum(item.outcome is not Outcome.ANSWERED for item in samples)
    if bad * PPM >= policy.failed_ppm * len(samples):
        return f"{bad} of {len(samples)} failed or unknown"
    slow = sum(item.latency_ms > policy.slow_ms for item in samples)
    if slow * PPM >= policy.slow_ppm * len(samples):
        return f"{slow} of {len(samples)} slower than {policy.slow_ms} ms"
    return None
