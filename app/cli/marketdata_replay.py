"""``causeway marketdata replay``: a recording through the live code, at any speed; and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import AsJson, emit, run, show
from app.cli.marketdata_places import HouseFile, Recordings, recordings_folder
from app.cli.marketdata_plot import Since, Until
from kernel.errors import Refused

if TYPE_CHECKING:
    from app.cli.marketdata_tape import Player, Tape
    from marketdata.events import MarketEvent

WRONG_EXIT = 1
LEVELS = 10
FRAME_S = 0.1


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(replay)


def replay(
    symbol: Annotated[
        str | None, typer.Argument(help="Show this one as it was; without: only count.")
    ] = None,
    *,
    venue: Annotated[
        str | None, typer.Option("--venue", help="Where several are recorded.")
    ] = None,
    house: HouseFile = None,
    recordings: Recordings = None,
    since: Since = None,
    until: Until = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0, help="Times the pace it had; 0: as fast as it can.")
    ] = 0,
    derive: Annotated[
        bool, typer.Option("--derive", help="Write the Parquet files of finished sessions again.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare what follows from it with the Parquet files there."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play recorded frames through the code that read the live feed, and tell what they say.

    With a symbol its book and trades are shown as they went. With --check the Parquet files are made
    again elsewhere and compared byte by byte: ends with exit code 1 if one differs.

    Example: `causeway marketdata replay --venue binance --recordings ./recordings --check`
    """
    from app.cli.marketdata_tape import Player, find_tape
    from app.cli.progress import progress_bar

    folder = recordings_folder(house, recordings)
    tape = find_tape(folder, venue, since, until)
    if derive or check:
        _derive(folder, tape, check=check, as_json=as_json)
        return
    player = Player(tape)
    counted = _Counted()
    if symbol is None or as_json:
        bar = progress_bar("played", "seconds")
        run(lambda: player.play(counted.take, speed=speed, progress=bar))
    else:
        _show(player, symbol, speed, counted)
    counted.tell(player, as_json=as_json)


class _Counted:
    """What a recording says, counted by symbol and channel."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.gaps: Counter[tuple[str, str]] = Counter()
        self.began_s = perf_counter()

    def take(self, event: MarketEvent) -> None:
        from marketdata.events import GapSeen

        if isinstance(event, GapSeen):
            self.gaps[event.symbol, str(event.channel)] += not event.until_ns
        else:
            self.events[event.symbol, _channel(event)] += 1

    def tell(self, player: Player, *, as_json: bool) -> None:
        keys = sorted(self.events.keys() | self.gaps.keys())
        rows = [(*key, str(self.events[key]), str(self.gaps[key])) for key in keys]
        columns = ("symbol", "channel", "events", "gaps")
        if as_json:
            listed = [
                {
                    "symbol": symbol,
                    "channel": channel,
                    "events": self.events[symbol, channel],
                    "gaps": self.gaps[symbol, channel],
                }
                for symbol, channel in keys
            ]
            emit({"venue": player.tape.venue, "items": player.items, "streams": listed})
            return
        took_s = perf_counter() - self.began_s
        title = (
            f"{player.tape.venue}: {player.items:,} items of {len(player.tape.paths)} segments"
            f" in {took_s:.1f} s, {player.items / max(took_s, 1e-9):,.0f}/s"
        )
        show(title, columns, rows, as_json=False, right=("events", "gaps"))


def _channel(event: MarketEvent) -> str:
    from marketdata.events import BestSeen, BookUpdate, CandleSeen, Channel, TickerSeen, TradeSeen

    kinds: dict[type[Any], Channel] = {
        BookUpdate: Channel.BOOK,
        TradeSeen: Channel.TRADES,
        BestSeen: Channel.BEST,
        TickerSeen: Channel.TICKER,
        CandleSeen: Channel.CANDLES,
    }
    return str(kinds[type(event)])


def _show(player: Player, symbol: str, speed: float, counted: _Counted) -> None:
    """Draw the ladder while it is played."""
    from collections import deque

    from rich.live import Live

    from app.cli.marketdata_ladder import Picture, ladder
    from app.cli.marketdata_watch import TRADES_KEPT, console
    from kernel.clock import from_unix_ns
    from marketdata.events import TradeSeen

    grid = player.tape.instrument(symbol)
    trades: deque[TradeSeen] = deque(maxlen=TRADES_KEPT)
    drawn_s = 0.0

    def picture(at_ns: int) -> Picture:
        book = player.book(grid.symbol)
        now = from_unix_ns(at_ns)
        return Picture(
            instrument=grid,
            view=None if book is None else book.view(now, LEVELS),
            trades=list(trades),
            statuses=(),
            now=now,
            levels=LEVELS,
        )

    def take_into(live: Live) -> Callable[[MarketEvent], None]:
        def take(event: MarketEvent) -> None:
            nonlocal drawn_s
            counted.take(event)
            if event.symbol != grid.symbol:
                return
            if isinstance(event, TradeSeen):
                trades.appendleft(event)
            if perf_counter() - drawn_s >= FRAME_S:
                drawn_s = perf_counter()
                live.update(ladder(picture(event.received_ns)), refresh=True)

        return take

    with Live(console=console(), auto_refresh=False) as live:
        run(lambda: player.play(take_into(live), speed=speed))


def _derive(folder: Path, tape: Tape, *, check: bool, as_json: bool) -> None:
    """Make the Parquet files of finished sessions; *check*: elsewhere, and compare."""
    import tempfile

    from app.cli.progress import progress_bar
    from marketdata.recording import derive
    from marketdata.recording.layout import OPEN_SUFFIX
    from venues.feeds.factory import machine_of

    paths = [path for path in tape.paths if not path.name.endswith(OPEN_SUFFIX)]
    if not paths:
        raise Refused(
            "no session is finished",
            where=str(folder),
            remedy="Its recorder still runs, or was killed: the next one finishes it",
        )
    bar = progress_bar("derived from", "items")
    with tempfile.TemporaryDirectory(prefix="causeway-derived-") as elsewhere:
        target = Path(elsewhere) if check else folder
        made = derive.derive(
            paths, target, machine_of, progress=lambda count: bar(count, count + 1)
        )
        rows = [
            (
                item.path,
                str(item.rows),
                str(item.size),
                _verdict(folder, item) if check else "written",
            )
            for item in made
        ]
    wrong = sum(row[-1] in {"differs", "missing"} for row in rows)
    show(
        f"{tape.venue}: {len(rows)} files follow from {len(paths)} segments, {wrong} differ",
        ("file", "rows", "bytes", "verdict"),
        rows,
        as_json=as_json,
        right=("rows", "bytes"),
    )
    if wrong:
        raise typer.Exit(WRONG_EXIT)


def _verdict(folder: Path, item: Any) -> str:
    from marketdata.recording.durable import sha256_of

    there = folder / item.path
    if not there.exists():
        return "missing"
    return "same" if sha256_of(there) == item.sha256 else "differs"
