"""``causeway marketdata record``: a venue's frames into a folder, until interrupted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.common import AsJson, clock, run, show_one
from app.cli.marketdata_places import HouseFile, HttpUrl, VenueName, WsUrl, feed_section

if TYPE_CHECKING:
    from app.workers.market_data_file import FeedSection
    from app.workers.market_recording import Recording

LOOK_S: Final = 0.5
CHANNELS: Final = "book,trades,best"


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(record)


def record(
    symbols: Annotated[list[str], typer.Argument(help="As the venue spells them, or BASE/QUOTE.")],
    *,
    recordings: Annotated[
        Path, typer.Option("--recordings", metavar="DIR", help="The folder; made if absent.")
    ],
    venue: VenueName = "binance",
    channels: Annotated[
        str, typer.Option("--channels", help="Of book, trades, best, ticker, candles.")
    ] = CHANNELS,
    seconds: Annotated[
        int, typer.Option("--seconds", min=0, help="End after so many; 0: when interrupted.")
    ] = 0,
    house: HouseFile = None,
    http_url: HttpUrl = "",
    ws_url: WsUrl = "",
    as_json: AsJson = False,
) -> None:
    """Record what a venue sends, frame by frame, and what follows from it as Parquet.

    No database is needed; a house does the same for its feeds, and keeps a manifest. What a kill or
    a full disk has cost is said in the recording itself.

    Example: `causeway marketdata record ETHUSDT BTCUSDT --venue binance --recordings ./recordings --seconds 60`
    """
    from kernel.telemetry import configure_logging

    section = feed_section(house, venue, symbols=tuple(symbols), http_url=http_url, ws_url=ws_url)
    configure_logging("warning")
    section = _with_channels(section, channels)
    facts = run(lambda: _record(section, recordings, seconds))
    show_one("Recorded", facts, as_json=as_json)


def _with_channels(section: FeedSection, channels: str) -> FeedSection:
    from app.cli.common import one_of
    from marketdata.events import Channel

    words = [word.strip() for word in channels.split(",") if word.strip()]
    return replace(section, channels=tuple(str(one_of(Channel, word, "channel")) for word in words))


async def _record(section: FeedSection, folder: Path, seconds: int) -> dict[str, str]:
    from random import SystemRandom

    from app.workers.market_feeds import KnownAssets, chosen, fetch_instruments, opened, plan_for
    from app.workers.market_recording import recorded
    from venues.feeds.factory import running

    listing = await fetch_instruments(section, KnownAssets(), clock=clock())
    grids = chosen(listing.found, section.symbols, section.venue)
    plan, chance = plan_for(section, grids), SystemRandom().random
    async with (
        opened(section, grids, clock=clock(), chance=chance) as feed,
        recorded(feed, plan, folder, clock=clock()) as recording,
    ):
        async with running(feed):
            await _until(recording, seconds)
        statuses = feed.status()
    return {
        "folder": str(folder),
        "venue": section.venue,
        "session": recording.writer.session,
        "items": str(recording.writer.items),
        "lost": str(recording.writer.lost),
        "files": str(len(recording.finished)),
        "messages": str(sum(item.messages for item in statuses)),
        "gaps": str(sum(item.gaps for item in statuses)),
        "reconnects": str(max((item.reconnects for item in statuses), default=0)),
    }


async def _until(recording: Recording, seconds: int) -> None:
    """Wait until the time is over or somebody interrupts; tell meanwhile how far it is."""
    import asyncio
    import threading

    from app.workers.house import stop_on_signals

    stop = asyncio.Event()
    # Signals are the main thread's; elsewhere the time is what ends it.
    if threading.current_thread() is threading.main_thread():
        stop_on_signals(stop)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    watched = sys.stderr.isatty()
    while not stop.is_set() and (not seconds or loop.time() < end_s):
        if watched:
            writer = recording.writer
            sys.stderr.write(f"\r{writer.items:,} items recorded, {writer.lost:,} lost ")
            sys.stderr.flush()
        left_s = end_s - loop.time() if seconds else LOOK_S
        try:
            async with asyncio.timeout(min(LOOK_S, max(0.0, left_s))):
                await stop.wait()
        except TimeoutError:
            continue
    if watched:
        sys.stderr.write("\n")
