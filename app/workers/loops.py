"""Turns in a loop: until told to stop, each loop at its own pace, none in the way of another.

A turn that fails in a way that was foreseen (a node that does not answer, a posting that is
refused) is logged and taken again after a pause that grows; the other loops go on meanwhile. An
error that nobody foresaw ends the process: a restart begins where the rows say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kernel.db import is_away, is_exhausted
from kernel.errors import CausewayError, OutsideUnavailable

PAUSE_MAX: Final = timedelta(seconds=30)
"""The longest pause after failures."""
GRACE: Final = timedelta(seconds=20)
"""How long a turn that is under way may take to end after the stop."""

log = structlog.get_logger("loops")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Something that is done again and again.

    Attributes:
        turn: does what is due and returns figures for the log; an empty mapping: nothing was due.
        pause: between two turns.
        usual: figures that are no news: a turn with nothing else is logged for debugging only.
        doze: waits so many seconds, or less if there is a reason to look sooner.
    """

    name: str
    turn: Callable[[], Awaitable[Mapping[str, object]]]
    pause: timedelta
    usual: frozenset[str] = frozenset()
    doze: Callable[[float], Awaitable[object]] = asyncio.sleep


@dataclass(slots=True)
class Pulse:
    """How a loop is doing.

    Attributes:
        turns: taken since the process began, failed ones included.
        failures: failed turns in a row; 0 after one that did not fail.
        changed_s: when the last turn began or ended, in seconds of the event loop's clock.
        is_busy: a turn is under way.
    """

    turns: int = 0
    failures: int = 0
    changed_s: float = 0.0
    is_busy: bool = False


async def run_loops(
    loops: Sequence[Loop],
    stop: asyncio.Event,
    pulses: MutableMapping[str, Pulse] | None = None,
) -> None:
    """Take turns until *stop* is set, then let turns under way end, at most `GRACE` long.

    Args:
        loops: each with a name of its own.
        stop: no turn begins after it is set.
        pulses: is told how each loop is doing, by name.
    """
    told = {} if pulses is None else pulses
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _repeat(loop, stop, told.setdefault(loop.name, Pulse())), name=loop.name
            )
            for loop in loops
        ]
        waiting = group.create_task(stop.wait())
        # A loop only ends by itself when it fails, and then the group ends the others.
        await waiting
        _, late = await asyncio.wait(tasks, timeout=GRACE.total_seconds())
        for task in late:
            log.warning("turn cut off", loop=task.get_name())
            task.cancel()


def next_pause(pause: timedelta, failures: int) -> timedelta:
    """Return the pause after *failures* failed turns in a row: doubled by each, up to a limit."""
    return min(PAUSE_MAX, pause * 2 ** min(failures, 16)) if failures else pause


async def _repeat(loop: Loop, stop: asyncio.Event, pulse: Pulse) -> None:
    time_s = asyncio.get_running_loop().time
    while not stop.is_set():
        pulse.is_busy, pulse.changed_s = True, time_s()
        try:
            done = await _turn(loop)
        except CausewayError as error:
            pulse.failures += 1
            # Foreseen: the sentence says all, a trace would hide it.
            log.error("turn failed", loop=loop.name, failures=pulse.failures, error=str(error))  # noqa: TRY400  see above
        else:
            pulse.failures = 0
            if done.keys() - loop.usual:
                log.info("turn", loop=loop.name, **done)
            elif done:
                log.debug("turn", loop=loop.name, **done)
        pulse.turns += 1
        pulse.is_busy, pulse.changed_s = False, time_s()
        # After a failure announcements do not shorten the pause: it is there to leave somebody alone.
        doze = asyncio.sleep if pulse.failures else loop.doze
        await _wait(stop, next_pause(loop.pause, pulse.failures), doze)


async def _turn(loop: Loop) -> Mapping[str, object]:
    try:
        return await loop.turn()
    except (DBAPIError, PoolTimeout, OSError) as error:
        said = getattr(error, "orig", error)
        if is_away(error):
            raise OutsideUnavailable(f"PostgreSQL cannot be reached: {said}") from error
        if is_exhausted(error):
            raise OutsideUnavailable(f"PostgreSQL cannot go on: {said}") from error
        raise


async def _wait(
    stop: asyncio.Event, pause: timedelta, doze: Callable[[float], Awaitable[object]]
) -> None:
    async def dozing() -> None:
        await doze(pause.total_seconds())

    async with asyncio.TaskGroup() as group:
        tasks = {group.create_task(stop.wait()), group.create_task(dozing())}
        _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
