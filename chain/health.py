"""Which provider to ask first, decided from how each has done so far. Pure; the time is passed in.

A provider is judged by what it did: whether it answered, how fast, how far its head lags behind the
best one, and which chain it serves. One that serves another chain is out until the process starts
again, because nothing that it says means what it seems to. All else passes: a provider that failed
rests for a while, and is asked again last.

The judgement decides only *whom to ask*. What is believed is decided by agreement
(`chain.provider_set`), never by good conduct.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

SMOOTHING: Final = 8
"""Weight of the past against the newest observation, as in an average over so many."""
PERMILLE: Final = 1_000
REST_BASE_S: Final = 0.5
REST_MAX_S: Final = 30.0
REST_DOUBLINGS_MAX: Final = 6
LAG_TOLERATED: Final = 2
"""Blocks behind the best head that are the network's doing, not the provider's."""
LATENCY_STEP_MS: Final = 25
"""Latencies are compared in doublings of this, so that jitter moves nobody."""
TROUBLE_WEIGHT: Final = 20
LAG_WEIGHT: Final = 4


class Standing(StrEnum):
    """Whether a provider may be asked at all."""

    UNPROVEN = "unproven"
    """It has not said yet which chain it serves; that is asked first."""
    SERVING = "serving"
    OUT = "out"
    """It served another chain; out until the process starts again."""


@dataclass(frozen=True, slots=True)
class Health:
    """How one provider has done.

    Attributes:
        failures: in a row, up to now.
        answers, troubles: in all.
        latency_ms: smoothed time to an answer.
        trouble_permille: smoothed share of questions without a usable answer.
        height: of its newest head; -1 before the first.
        backwards: how often its head was lower than before.
        rests_until_s: not asked before, if others can be (monotonic seconds).
        last_trouble: in words, empty when there was none.
    """

    provider: str
    standing: Standing = Standing.UNPROVEN
    failures: int = 0
    answers: int = 0
    troubles: int = 0
    latency_ms: int = 0
    trouble_permille: int = 0
    height: int = -1
    backwards: int = 0
    rests_until_s: float = 0.0
    last_trouble: str = ""


def proven(health: Health) -> Health:
    """Return the health of a provider that has said that it serves our chain."""
    return replace(health, standing=Standing.SERVING)


def answered(health: Health, took_ms: int) -> Health:
    """Return the health after an answer that took *took_ms*."""
    return replace(
        health,
        failures=0,
        answers=health.answers + 1,
        latency_ms=_smoothed(health.latency_ms, took_ms) if health.answers else took_ms,
        trouble_permille=_smoothed(health.trouble_permille, 0),
        rests_until_s=0.0,
    )


def failed(health: Health, why: str, now_s: float, *, rest_s: float = 0.0) -> Health:
    """Return the health after a question without a usable answer.

    *rest_s* is the least rest, for a provider that says when to come again.
    """
    rest_s = max(rest_s, REST_BASE_S * 2 ** min(health.failures, REST_DOUBLINGS_MAX))
    return replace(
        health,
        failures=health.failures + 1,
        troubles=health.troubles + 1,
        trouble_permille=_smoothed(health.trouble_permille, PERMILLE),
        rests_until_s=now_s + min(rest_s, REST_MAX_S),
        last_trouble=why,
    )


def refused(health: Health, why: str) -> Health:
    """Return the health after a refusal: an answer, but no help; nobody rests for it."""
    return replace(
        health,
        troubles=health.troubles + 1,
        trouble_permille=_smoothed(health.trouble_permille, PERMILLE),
        last_trouble=why,
    )


def stands_at(health: Health, height: int) -> Health:
    """Return the health of a provider whose newest block is at *height* now."""
    back = height < health.height
    return replace(
        health,
        height=height,
        backwards=health.backwards + back,
        last_trouble=f"went back from height {health.height} to {height}"
        if back
        else health.last_trouble,
    )


def serves_another_chain(health: Health, why: str) -> Health:
    """Return the health of a provider that must not be asked any more."""
    return replace(health, standing=Standing.OUT, troubles=health.troubles + 1, last_trouble=why)


def cost(health: Health, best_height: int) -> int:
    """Return how unwelcome it is to ask this provider; 0 is best."""
    lag = max(0, best_height - health.height - LAG_TOLERATED) if health.height >= 0 else 0
    latency = (health.latency_ms // LATENCY_STEP_MS).bit_length()
    trouble = TROUBLE_WEIGHT * health.trouble_permille // PERMILLE
    return latency + trouble + LAG_WEIGHT * min(lag, PERMILLE)


def order(
    healths: Sequence[Health], now_s: float, *, preferred: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """Return whom to ask, best first, by place in *healths*.

    *preferred* are those known to be on the branch that is followed: they come before all others
    that do not rest. Who serves another chain is not in it.
    """
    best = max((health.height for health in healths), default=-1)

    def rank(place: int) -> tuple[bool, bool, int, int]:
        health = healths[place]
        return (
            health.rests_until_s > now_s,
            place not in preferred,
            cost(health, best),
            place,
        )

    usable = [place for place, health in enumerate(healths) if health.standing is not Standing.OUT]
    return tuple(sorted(usable, key=rank))


def awake(healths: Sequence[Health], now_s: float, wanted: int) -> tuple[int, ...]:
    """Return all who do not rest; with those who rest longest ago, if fewer than *wanted*."""
    ranked = order(healths, now_s)
    up = [place for place in ranked if healths[place].rests_until_s <= now_s]
    resting = sorted(set(ranked) - set(up), key=lambda place: healths[place].rests_until_s)
    return (*up, *resting[: max(0, wanted - len(up))])


def _smoothed(past: int, new: int) -> int:
    return (past * (SMOOTHING - 1) + new) // SMOOTHING
