"""``causeway marketdata``: what is streamed, how the streams are doing, what was missed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import (
    marketdata_backfill,
    marketdata_export,
    marketdata_plot,
    marketdata_query,
    marketdata_record,
    marketdata_replay,
    marketdata_watch,
)
from app.cli.common import AsJson, clock, one_of, parse_time, read, show
from app.cli.marketdata_places import HouseFile, feed_section
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.gaps import GapRow
    from marketdata.model import Instrument, StreamStatus

app = typer.Typer(help="Books, trades, recordings: what we price from.", no_args_is_help=True)
marketdata_watch.register(app)
marketdata_plot.register(app)
marketdata_record.register(app)
marketdata_replay.register(app)
marketdata_backfill.register(app)
marketdata_query.register(app)
marketdata_export.register(app)

ATTENTION_EXIT: Final = 1
GAPS_OF: Final = timedelta(days=1)
Venue = Annotated[str | None, typer.Option("--venue", help="Only of this venue.")]
Symbol = Annotated[
    str | None, typer.Option("--symbol", help="Only of this one, as the venue spells it.")
]


@app.command()
def status(
    *,
    venue: Venue = None,
    check: Annotated[
        bool, typer.Option("--check", help="End with 1 if a stream needs attention.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how every stream of the running house is doing, and which needs attention.

    What is shown is what the house wrote last, some seconds ago; of one that does not run any more
    the streams need attention.

    Example: `causeway marketdata status --venue binance --check`
    """

    async def work(conn: AsyncConnection) -> list[tuple[StreamStatus, datetime]]:
        from marketdata.status import list_status

        return await list_status(conn, venue)

    from marketdata.alarms import stream_alarm

    now = clock().now()
    rows, needing = [], 0
    for item, told_at in read(work):
        alarm = stream_alarm(item, now=now, told_at=told_at)
        needing += alarm is not None
        rows.append(
            (
                item.venue,
                item.symbol,
                str(item.channel),
                str(item.state),
                _ago(now, item.last_event_at),
                f"{item.messages}",
                f"{item.gaps}",
                f"{item.reconnects}",
                f"{item.sequence}",
                _ago(now, told_at),
                "" if alarm is None else str(alarm),
                item.detail,
            )
        )
    columns = (
        *("venue", "symbol", "channel", "state", "last_message", "messages", "gaps"),
        *("reconnects", "sequence", "told", "attention", "detail"),
    )
    right = ("last_message", "messages", "gaps", "reconnects", "sequence", "told")
    show("Streams", columns, rows, as_json=as_json, right=right)
    if check and (needing or not rows):
        raise typer.Exit(ATTENTION_EXIT)


@app.command()
def gaps(
    *,
    venue: Venue = None,
    symbol: Symbol = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="book, trades, best, ticker or candles.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="ISO 8601; a day ago.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="ISO 8601; now.")] = None,
    unfilled: Annotated[
        bool, typer.Option("--unfilled", help="Only those that are not filled and can be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List when streams could not be relied on, why, and what was fetched afterwards.

    A gap is open, unfilled, filled, or lost: nobody tells the past of a book, a best price or a
    ticker, and a venue may not tell that of its candles for long. What is missing is said.

    Example: `causeway marketdata gaps --venue binance --channel trades --unfilled`
    """
    end = parse_time(until) or clock().now()
    begin = parse_time(since) or end - GAPS_OF

    async def work(conn: AsyncConnection) -> list[GapRow]:
        from marketdata.events import Channel
        from marketdata.gaps import list_gaps

        wanted = None if channel is None else one_of(Channel, channel, "channel")
        return await list_gaps(conn, venue, symbol, wanted, begin, end, unfilled=unfilled)

    rows = [
        (
            item.venue,
            item.symbol,
            str(item.channel),
            iso(item.since),
            "" if item.until is None else iso(item.until),
            str(item.reason),
            item.detail,
            str(item.state),
            "" if item.filled_at is None else iso(item.filled_at),
            str(item.rows) if item.filled_by else "",
            item.missing,
        )
        for item in read(work)
    ]
    columns = (
        *("venue", "symbol", "channel", "since", "until", "reason", "detail"),
        *("state", "filled", "rows", "missing"),
    )
    show("Gaps", columns, rows, as_json=as_json, right=("rows",))


@app.command()
def instruments(
    venue: Annotated[str, typer.Argument(help="Our code of the venue.")],
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the venue first, and record what has changed.")
    ] = False,
    house: HouseFile = None,
    as_json: AsJson = False,
) -> None:
    """List what is traded at a venue and on which grid, in the newest version on record.

    Example: `causeway marketdata instruments binance`
    """
    if refresh:
        _refresh(venue, house)

    async def work(conn: AsyncConnection) -> list[Instrument]:
        from marketdata.instruments import list_instruments

        return await list_instruments(conn, venue)

    rows = [
        (
            item.symbol,
            item.base.code,
            item.quote.code,
            item.price_text(1),
            item.base.format(item.lot, code=False),
            item.base.format(item.lot * item.lots_min, code=False),
            item.quote.format(item.min_notional, code=False),
            str(item.version),
        )
        for item in read(work)
    ]
    columns = ("symbol", "base", "quote", "tick", "lot", "smallest", "notional_min", "version")
    if not rows:
        typer.echo(f"no instrument of {venue} is on record; --refresh asks the venue", err=True)
    show(f"Instruments of {venue}", columns, rows, as_json=as_json, right=columns[3:])


def _refresh(venue: str, house: Path | None) -> None:
    from app.cli.common import on_database, run
    from app.workers.market_feeds import refresh

    section = feed_section(house, venue)
    done = run(lambda: on_database(lambda engine: refresh(engine, section, clock=clock())))
    typer.echo(
        f"{len(done.new)} new, {len(done.changed)} changed, {done.unchanged} as before,"
        f" {len(done.vanished)} not listed any more, {len(done.left_out)} left out",
        err=True,
    )


def _ago(now: datetime, at: datetime | None) -> str:
    return "" if at is None else f"{max(0.0, (now - at).total_seconds()):.1f} s"
