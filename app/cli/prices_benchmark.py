"""``causeway prices benchmark``: VWAP, TWAP and the reference rate, from recorded trades."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import AsJson, DryRun, clock, one_of, parse_time, show_one, write
from app.cli.marketdata_places import Recordings, recordings_folder
from app.cli.prices_shown import facts_of, load_pair, split_pair
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.benchmarks import Tape, Window
    from marketdata.model import Instrument, PriceRecord, RecordedPrice

LOOK_BACK: Final = timedelta(minutes=5)
"""How far before a window its first standing price is looked for."""

TRADES: Final = """
SELECT trade_id, CAST(price AS VARCHAR), CAST(quantity AS VARCHAR), buyer_is_maker,
       coalesce(exchange_ns, 0), received_ns
FROM trades
WHERE venue = ? AND symbol = ?
  AND CASE WHEN coalesce(exchange_ns, 0) > 0 THEN exchange_ns ELSE received_ns END
      BETWEEN CAST(? AS BIGINT) AND CAST(? AS BIGINT)
"""


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command()(benchmark)


def benchmark(
    kind: Annotated[str, typer.Argument(help="vwap, twap or reference-rate.")],
    pair: Annotated[str, typer.Argument(help="ETH/USDT.")],
    *,
    venue: Annotated[list[str], typer.Option("--venue", help="Once for each venue.")],
    end: Annotated[str, typer.Option(help="The window ends just before this time (UTC).")],
    minutes: Annotated[
        int, typer.Option(min=1, max=1_440, help="Its length; a reference rate has 60.")
    ] = 60,
    venues_min: Annotated[
        int, typer.Option("--venues-min", min=1, help="With fewer, a reference rate is degraded.")
    ] = 1,
    recordings: Recordings = None,
    house: Annotated[
        Path | None, typer.Option("--house", metavar="FILE", help="Whose recordings are read.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compute a benchmark of a window from recorded trades, and record it as a price.

    Example: `causeway prices benchmark reference-rate ETH/USDT --end 2026-10-30T16:00:00Z
    --venue binance --venue kraken --recordings recordings`
    """
    from marketdata.price_model import PriceKind

    wanted = one_of(PriceKind, kind, "kind of benchmark")
    until = parse_time(end)
    assert until is not None, "a text was given"
    split_pair(pair)
    if "T" not in end:
        raise BadInput(f"{end} is a day", where="--end", remedy=f"Write {end}T16:00:00Z")
    if until > clock().now():
        raise BadInput(f"a window that ends at {iso(until)} is not over", where="--end")

    async def work(conn: AsyncConnection) -> RecordedPrice:
        from marketdata.benchmarks import Window
        from marketdata.prices import record_price

        folder = recordings_folder(house, recordings)
        assets = await load_pair(conn, pair)
        window = Window(
            base=assets.base,
            quote=assets.quote,
            start=until - timedelta(minutes=minutes),
            end=until,
        )
        tapes = [await _tape(conn, folder, pair, name, window) for name in venue]
        made = _made(wanted, window, tapes, venues_min)
        if isinstance(made, Refused):
            raise made
        return await record_price(conn, made, now=clock().now())

    found = write(work, dry_run=dry_run)
    facts = {
        **facts_of(found),
        "trades": str(sum(int(item["trades"]) for item in found.record.constituents)),
        "venues": ", ".join(str(item["venue"]) for item in found.record.constituents),
    }
    show_one(f"{wanted} of {pair}", facts, as_json=as_json, dry_run=dry_run)


def _made(
    kind: str, window: Window, tapes: Sequence[Tape], venues_min: int
) -> PriceRecord | Refused:
    from marketdata.benchmarks import HOUR, reference_rate, twap, vwap
    from marketdata.price_model import PriceKind

    if kind == PriceKind.VWAP:
        return vwap(window, tapes)
    if kind == PriceKind.TWAP:
        before = [trade for tape in tapes for trade in tape.trades]
        return twap(window, tapes, before=before)
    if kind != PriceKind.REFERENCE_RATE:
        raise BadInput(f"{kind} is no benchmark", remedy="Use vwap, twap or reference-rate")
    if window.end - window.start != HOUR:
        raise BadInput("a reference rate is of 60 minutes", remedy="Leave --minutes out")
    return reference_rate(window.end, window.base, window.quote, tapes, venues_min=venues_min)


async def _tape(conn: AsyncConnection, folder: Path, pair: str, venue: str, window: Window) -> Tape:
    from dataclasses import replace

    from app.workers.market_feeds import found_instrument
    from marketdata.benchmarks import TRADES_MAX, Tape
    from marketdata.events import Channel, GapSeen
    from marketdata.gaps import list_gaps
    from marketdata.instruments import list_instruments
    from marketdata.recording.views import query

    listed = found_instrument(await list_instruments(conn, venue), pair, venue)
    # What was recorded on an earlier grid is exact on this one too.
    places = 18
    grid = replace(
        listed,
        price_scale=places,
        tick=1,
        base=replace(listed.base, scale=places),
    )
    span = _ns(window.start - LOOK_BACK), _ns(window.end) - 1
    answer = query(folder, TRADES, (venue, grid.symbol, *span), rows_max=TRADES_MAX)
    if answer.is_cut:
        raise BadInput(f"{venue} has more than {TRADES_MAX:,} trades in that window")
    gaps = await list_gaps(
        conn, venue, grid.symbol, Channel.TRADES, window.start, window.end, unfilled=True
    )
    return Tape(
        grid,
        [_trade(grid, row) for row in answer.rows],
        [
            GapSeen(
                venue=venue,
                symbol=grid.symbol,
                channel=gap.channel,
                reason=gap.reason,
                since_ns=_ns(gap.since),
                until_ns=0 if gap.until is None else _ns(gap.until),
                detail=gap.detail,
                received_ns=_ns(gap.since),
            )
            for gap in gaps
        ],
    )


def _trade(grid: Instrument, row: Sequence[Any]) -> Any:
    from marketdata.events import TradeSeen

    trade_id, price, quantity, buyer_is_maker, exchange_ns, received_ns = row
    return TradeSeen(
        venue=grid.venue,
        symbol=grid.symbol,
        trade_id=str(trade_id),
        ticks=grid.ticks(str(price)),
        units=grid.base.parse(str(quantity)),
        buyer_is_maker=bool(buyer_is_maker),
        exchange_ns=int(exchange_ns),
        received_ns=int(received_ns),
    )


def _ns(at: datetime) -> int:
    from kernel.clock import to_unix_ns

    return to_unix_ns(at)
