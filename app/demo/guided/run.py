"""Play the guided tour from the command line: chapter by chapter, with somebody watching or without."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import orjson
from rich.console import Console

from app.demo.guided.chapter import Chapter
from app.demo.guided.places import look
from app.demo.guided.programme import CHAPTERS, FOUNDING
from app.demo.guided.screen import Quiet, Screen, open_console
from app.demo.guided.told import Told
from app.demo.guided.tour import BANK_ACCOUNTS, Teller, Tour
from app.demo.run import FAILED, keep_running
from app.demo.stage import Stage
from app.demo.world import World, open_world
from kernel.clock import SystemClock
from kernel.errors import BadInput, ungrouped
from kernel.settings import Settings
from kernel.telemetry import configure_logging

STARTING: Final = "Starting PostgreSQL, a chain, a venue and a bank on this machine …"


def run_guided(
    *, as_json: bool, keep: bool, auto: bool, seed: int, only: Sequence[str] = ()
) -> int:
    """Play the tour and return the exit code: 0 if every proof held, 1 if one did not.

    Args:
        as_json: print the result as data, and nothing else; nobody is asked.
        keep: leave everything running afterwards.
        auto: ask nobody anything.
        seed: of keys, prices, and of every choice that nobody makes.
        only: names of the chapters that are played; none: all of them.

    Raises:
        BadInput: there is no such chapter, or nobody is there who could be asked.
    """
    chapters = choose_chapters(only)
    asks = not (auto or as_json)
    if asks and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput(
            "a guided demo asks its viewer, and there is no terminal",
            remedy="Use --auto to let it run by itself",
        )
    settings = Settings.from_env(os.environ)
    configure_logging("error", as_json=settings.log_json)
    with ungrouped():
        return asyncio.run(
            _run(settings, chapters, as_json=as_json, keep=keep, asks=asks, seed=seed)
        )


def choose_chapters(only: Sequence[str]) -> list[Chapter]:
    """Return the chapters of these names in the order of the tour, the founding always first.

    Raises:
        BadInput: there is no chapter of a name.
    """
    names = [chapter.name for chapter in CHAPTERS]
    for name in only:
        if name not in names:
            raise BadInput(f"there is no chapter {name!r}", remedy=f"Choose of {', '.join(names)}")
    return [item for item in CHAPTERS if not only or item is FOUNDING or item.name in only]


async def _run(
    settings: Settings,
    chapters: Sequence[Chapter],
    *,
    as_json: bool,
    keep: bool,
    asks: bool,
    seed: int,
) -> int:
    began = time.monotonic()
    progress = Console(stderr=True, quiet=as_json)
    titles = [chapter.title for chapter in chapters]
    screen = None if as_json else Screen(open_console(), titles, asks=asks)
    with progress.status(STARTING) as starting:
        async with open_world(
            settings, seed=seed, bitcoin=False, bank_accounts=BANK_ACCOUNTS
        ) as world:
            starting.stop()
            for notice in world.notices:
                progress.print(notice, style="yellow", highlight=False, soft_wrap=True)
            async with toured(world, screen or Quiet(), seed=seed) as tour:
                told = await _play(tour, chapters, screen)
                seconds = time.monotonic() - began
                held = len(told) > 0 and all(item.held for item in told)
                if screen is None:
                    _emit(_document(told, world, held=held, seconds=seconds))
                else:
                    screen.sum_up(told, seconds=seconds, chain=world.evm)
                if keep:
                    await keep_running(world, Console(stderr=True))
    return 0 if held else FAILED


@asynccontextmanager
async def toured(world: World, teller: Teller, *, seed: int) -> AsyncIterator[Tour]:
    """Give what chapters play on, and close what they opened."""
    stage = Stage(world, SystemClock(), teller.happened)
    async with stage.connections():
        chance = Random(seed)  # noqa: S311  the same seed makes the same choices; no key is made of it
        tour = Tour(stage, teller, chance, look, Told("", ""))
        async with tour.opened():
            yield tour


async def play(tour: Tour, chapter: Chapter) -> Told:
    """Play one chapter and return what it came to."""
    began = time.monotonic()
    tour.told = Told(chapter.name, chapter.title)
    tour.stage.chapter = chapter.name
    tour.stage.timeline = tour.told.timeline
    await chapter.play(tour)
    tour.told.seconds = time.monotonic() - began
    return tour.told


async def _play(tour: Tour, chapters: Sequence[Chapter], screen: Screen | None) -> list[Told]:
    told: list[Told] = []
    if screen is None:
        return [await play(tour, chapter) for chapter in chapters]
    async with screen.opened():
        for number, chapter in enumerate(chapters):
            if number and not await screen.pause(chapter.title):
                break
            screen.begin(number, chapter.title, chapter.question)
            told.append(await play(tour, chapter))
    return told


def _document(told: Sequence[Told], world: World, *, held: bool, seconds: float) -> dict[str, Any]:
    return {
        "held": held,
        "seconds": round(seconds, 1),
        "evm": world.evm,
        "seed": world.seed,
        "notices": world.notices,
        "chapters": [item.to_json() for item in told],
    }


def _emit(document: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()
