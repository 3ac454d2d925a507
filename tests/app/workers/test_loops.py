"""Loops: failures of one leave the others alone; a stop lets the turn under way end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from app.workers import loops
from app.workers.loops import PAUSE_MAX, Loop, Pulse, next_pause, run_loops
from kernel.db import create_engine
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


STARTING: Final = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
"""The fields of an ErrorResponse (PostgreSQL documentation, "Message Formats")."""
SSL_REQUEST_BYTES: Final = 8


@asynccontextmanager
async def nobody_there() -> AsyncIterator[str]:
    yield "127.0.0.1:9"


@asynccontextmanager
async def a_server_that_recovers() -> AsyncIterator[str]:
    """Somebody who says what PostgreSQL says while it reads its log again after a crash."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(await reader.read(1_000)) == SSL_REQUEST_BYTES:
            writer.write(b"N")
            await reader.read(1_000)
        writer.write(b"E" + (len(STARTING) + 4).to_bytes(4, "big") + STARTING)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield f"{host}:{port}"
    server.close()


@pytest.mark.parametrize("there", [nobody_there, a_server_that_recovers])
async def test_a_database_that_is_away_ends_a_turn_and_not_the_house(
    there: Callable[[], AbstractAsyncContextManager[str]],
) -> None:
    """Much is read outside of `transact`, over a connection that is opened for it."""
    stop, pulses = asyncio.Event(), dict[str, Pulse]()
    async with there() as address:
        engine = create_engine(f"postgresql+asyncpg://nobody@{address}/none")

        async def turn() -> Mapping[str, object]:
            if pulses["reads"].failures == 2:
                stop.set()
                return {}
            async with engine.connect():
                raise AssertionError("it is not there")

        await run_loops([Loop(name="reads", turn=turn, pause=SOON)], stop, pulses)
        await engine.dispose()

    assert pulses["reads"].turns == 3


async def test_a_file_that_is_missing_is_no_database_that_is_away(tmp_path: Path) -> None:
    async def turn() -> Mapping[str, object]:
        return {"text": (tmp_path / "none").read_text()}

    with pytest.raises(ExceptionGroup) as raised:
        await run_loops([Loop(name="reads", turn=turn, pause=SOON)], asyncio.Event())

    assert raised.group_contains(FileNotFoundError)


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
