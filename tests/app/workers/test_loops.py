"""Loops: failures of one leave the others alone; a stop lets the turn under way end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from app.workers import loops
from app.workers.loops import PAUSE_MAX, Loop, next_pause, run_loops
from kernel.errors import OutsideUnavailable

SOON = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (1_000_000, 30)],
)
def test_the_pause_doubles_with_each_failure_up_to_a_limit(failures: int, pause: int) -> None:
    assert next_pause(timedelta(seconds=1), failures) == timedelta(seconds=pause)
    assert timedelta(seconds=30) == PAUSE_MAX


async def test_a_loop_that_fails_is_taken_again_and_the_other_goes_on() -> None:
    stop = asyncio.Event()
    turns = {"broken": 0, "sound": 0}

    async def broken() -> Mapping[str, object]:
        turns["broken"] += 1
        raise OutsideUnavailable("the node does not answer")

    async def sound() -> Mapping[str, object]:
        turns["sound"] += 1
        if turns["broken"] > 1 and turns["sound"] > 20:
            stop.set()
        return {}

    await run_loops(
        [
            Loop(name="broken", turn=broken, pause=SOON),
            Loop(name="sound", turn=sound, pause=SOON),
        ],
        stop,
    )

    assert turns["broken"] > 1
    assert turns["sound"] > turns["broken"]


async def test_an_error_that_nobody_foresaw_ends_everything() -> None:
    async def bug() -> Mapping[str, object]:
        raise ZeroDivisionError

    async def sound() -> Mapping[str, object]:
        return {}

    with pytest.raises(ExceptionGroup) as raised:
        await run_loops(
            [Loop(name="bug", turn=bug, pause=SOON), Loop(name="sound", turn=sound, pause=SOON)],
            asyncio.Event(),
        )

    assert raised.group_contains(ZeroDivisionError)


async def test_a_stop_lets_the_turn_under_way_end() -> None:
    stop, ended = asyncio.Event(), []

    async def slow() -> Mapping[str, object]:
        stop.set()
        await asyncio.sleep(0.05)
        ended.append(True)
        return {}

    await run_loops([Loop(name="slow", turn=slow, pause=SOON)], stop)

    assert ended == [True]


async def test_a_turn_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "GRACE", timedelta(milliseconds=20))
    stop = asyncio.Event()

    async def stuck() -> Mapping[str, object]:
        stop.set()
        await asyncio.Event().wait()
        return {}

    await run_loops([Loop(name="stuck", turn=stuck, pause=SOON)], stop)

    assert stop.is_set()


async def test_an_announcement_ends_the_pause_but_not_the_one_after_a_failure() -> None:
    stop = asyncio.Event()
    dozed: list[float] = []
    turns = 0

    async def announced(seconds: float) -> None:
        dozed.append(seconds)

    async def turn() -> Mapping[str, object]:
        nonlocal turns
        turns += 1
        if turns == 4:
            stop.set()
        if turns == 2:
            raise OutsideUnavailable("the node does not answer")
        return {}

    second = timedelta(milliseconds=50)
    began = asyncio.get_running_loop().time()
    await run_loops([Loop(name="watcher", turn=turn, pause=second, doze=announced)], stop)

    # After turns 1 and 3 it was woken at once; the failure's pause, twice as long, was kept.
    assert dozed[:2] == [0.05, 0.05]
    assert asyncio.get_running_loop().time() - began >= 0.1


async def test_a_stop_ends_a_pause() -> None:
    stop = asyncio.Event()

    async def turn() -> Mapping[str, object]:
        asyncio.get_running_loop().call_soon(stop.set)
        return {}

    async with asyncio.timeout(5):
        await run_loops([Loop(name="slow", turn=turn, pause=timedelta(hours=1))], stop)
