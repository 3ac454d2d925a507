"""``causeway marketdata backfill``: what streams have missed, asked for by REST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, clock, on_database, one_of, parse_time, run, show
from app.cli.marketdata_places import HouseFile, HttpUrl, VenueName, feed_section
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.market_data_file import FeedSection
    from marketdata.backfill_model import Backfill
    from marketdata.events import Channel
    from marketdata.model import Instrument

INTERVAL_S = 60


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(backfill)


def backfill(
    symbol: Annotated[
        str | None, typer.Argument(help="Of a stretch of time; without: every gap that has ended.")
    ] = None,
    *,
    venue: VenueName = "binance",
    channel: Annotated[str, typer.Option("--channel", help="trades or candles.")] = "trades",
    since: Annotated[str | None, typer.Option("--since", help="ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="ISO 8601; now.")] = None,
    interval: Annotated[
        int, typer.Option("--interval", min=1, help="Seconds of a candle.")
    ] = INTERVAL_S,
    house: HouseFile = None,
    http_url: HttpUrl = "",
    as_json: AsJson = False,
) -> None:
    """Fetch the trades or candles that a venue's streams have missed, and mark the gaps filled.

    It may be cut off anywhere: a second time it goes on after the last page that came, and nothing
    is counted twice. Books cannot be fetched afterwards; their gaps stay. A house does this by
    itself for its feeds.

    Example: `causeway marketdata backfill --venue binance --house house.toml`
    """
    from marketdata.events import Channel

    section = feed_section(house, venue, http_url=http_url)
    wanted = _Asked(
        section=section,
        symbol=symbol,
        channel=one_of(Channel, channel, "channel"),
        since=parse_time(since),
        until=parse_time(until) or clock().now(),
        interval_s=interval,
        recordings=_folder(house),
    )
    if (symbol is None) != (since is None):
        raise BadInput("a stretch of time is of one symbol", remedy="Give SYMBOL and --since")
    done = run(lambda: on_database(wanted.run))
    rows = [
        (
            item.wanted.symbol,
            str(item.wanted.channel),
            iso(item.wanted.since),
            iso(item.wanted.until),
            str(item.pages),
            str(item.seen),
            str(item.new),
            str(item.differing),
            "gap" if item.wanted.gap_id else "",
            "" if item.done_at is None else iso(item.done_at),
        )
        for item in done
    ]
    columns = (
        *("symbol", "channel", "since", "until", "pages", "rows", "new", "differing"),
        *("for", "done"),
    )
    show("Backfills", columns, rows, as_json=as_json, right=columns[4:8])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked for on the command line."""

    section: FeedSection
    symbol: str | None
    channel: Channel
    since: datetime | None
    until: datetime
    interval_s: int
    recordings: Path | None

    async def run(self, engine: AsyncEngine) -> list[Backfill]:
        from app.workers.market_backfill import GapFiller
        from app.workers.market_feeds import found_instrument
        from kernel.db import transact
        from marketdata.instruments import list_instruments

        venue = self.section.venue
        known = await transact(engine, lambda conn: list_instruments(conn, venue))
        filler = GapFiller(
            engine=engine,
            section=self.section,
            clock=clock(),
            interval_s=self.interval_s,
            recordings=self.recordings,
            progress=_bar(),
        )
        if self.symbol is None:
            return await filler.fill()
        grid = found_instrument(known, self.symbol, venue)
        asked = await transact(engine, lambda conn: self._ask(conn, grid))
        return await filler.run([asked])

    async def _ask(self, conn: AsyncConnection, grid: Instrument) -> Backfill:
        from marketdata.backfill import ask_backfill
        from marketdata.backfill_model import Wanted
        from marketdata.events import Channel

        assert self.since is not None
        wanted = Wanted(
            venue=grid.venue,
            symbol=grid.symbol,
            channel=self.channel,
            since=self.since,
            until=self.until,
            interval_s=self.interval_s if self.channel is Channel.CANDLES else 0,
        )
        return await ask_backfill(conn, wanted, now=clock().now())


def _folder(house: Path | None) -> Path | None:
    """Return where the house records, if it does and ever has."""
    if house is None:
        return None
    from app.workers.house_file import read_house

    folder = read_house(house).market_data.recordings
    return folder if folder is not None and folder.is_dir() else None


def _bar() -> Callable[[int, int], None]:
    from app.cli.progress import progress_bar

    return progress_bar("fetched", "seconds")
