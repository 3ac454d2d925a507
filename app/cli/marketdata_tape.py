"""Which of a folder's recordings a command reads: by venue, symbol and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.cli.common import parse_time
from kernel.errors import Refused

if TYPE_CHECKING:
    from marketdata.book import L2Book
    from marketdata.events import MarketEvent
    from marketdata.model import Instrument
    from marketdata.ports import FeedMachine
    from marketdata.recording.model import SegmentHeader


NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """The segments of one venue that hold a stretch of time; `until_ns` 0: to the end.

    Attributes:
        regridded: symbols whose ticks or units are not the same in all of it.
    """

    paths: tuple[Path, ...]
    venue: str
    instruments: tuple[Instrument, ...]
    since_ns: int
    until_ns: int
    regridded: frozenset[str] = frozenset()

    def instrument(self, symbol: str | None) -> Instrument:
        """Return the grid of a symbol; of the only one, if none is named.

        Raises:
            Refused: it is not recorded, or several are and none is named, or its grid has changed.
        """
        found = [
            item
            for item in self.instruments
            if symbol in {None, item.symbol, f"{item.base.code}/{item.quote.code}"}
        ]
        if len(found) != 1:
            names = ", ".join(item.symbol for item in self.instruments)
            raise Refused(
                f"{symbol} is not recorded of {self.venue}" if symbol else "which symbol?",
                remedy=f"Recorded are {names}",
            )
        if found[0].symbol in self.regridded:
            raise Refused(
                f"the grid of {found[0].symbol} changes within the recording",
                remedy="Choose a time before or after it with --since and --until",
            )
        return found[0]

    def takes(self, event: MarketEvent) -> bool:
        """Return whether an event lies in the stretch."""
        at_ns = event.received_ns
        return at_ns >= self.since_ns and not (self.until_ns and at_ns >= self.until_ns)


def find_tape(folder: Path, venue: str | None, since: str | None, until: str | None) -> Tape:
    """Return the recordings of a venue; the one that is there, where only one is.

    A session is read from its beginning even if only its end is wanted: a book is made of all that
    came before. One that is still being written is read as far as it was.

    Raises:
        Refused: nothing is recorded, or of several venues.
    """
    from kernel.clock import to_unix_ns
    from marketdata.recording.layout import list_open, list_segments
    from marketdata.recording.raw_reader import read_header

    begin, end = parse_time(since), parse_time(until)
    since_ns = 0 if begin is None else to_unix_ns(begin)
    until_ns = 0 if end is None else to_unix_ns(end)
    found = [(path, read_header(path)) for path in list_segments(folder, venue)]
    found += [(path, read_header(path)) for path in list_open(folder, venue)]
    found.sort(key=lambda pair: (pair[1].venue, pair[1].session, pair[1].number))
    venues = sorted({header.venue for _, header in found})
    if len(venues) != 1:
        what = f"are recordings of {', '.join(venues)}" if venues else "is no recording"
        raise Refused(
            f"there {what}", where=str(folder), remedy="Name one with --venue" if venues else ""
        )
    listed = list(_within(found, since_ns, until_ns))
    if not listed:
        raise Refused("nothing was recorded in that time", where=str(folder))
    grids = {item.symbol: item for _, header in listed for item in header.instruments}
    steps = {
        (item.symbol, item.price_scale, item.tick, item.base.scale)
        for _, header in listed
        for item in header.instruments
    }
    counted = Counter(symbol for symbol, *_ in steps)
    return Tape(
        paths=tuple(path for path, _ in listed),
        venue=venues[0],
        instruments=tuple(grids.values()),
        since_ns=since_ns,
        until_ns=until_ns,
        regridded=frozenset(symbol for symbol, count in counted.items() if count > 1),
    )


class Player:
    """Makes the machines of a tape's sessions, plays it, and has the books at hand."""

    def __init__(self, tape: Tape) -> None:
        """Play *tape*; nothing is read before `play`."""
        self.tape = tape
        self.items = 0
        self._machine: FeedMachine | None = None

    def book(self, symbol: str) -> L2Book | None:
        """Return the book as it is after what was played."""
        return None if self._machine is None else self._machine.book(symbol)

    async def play(
        self,
        sink: Callable[[MarketEvent], None],
        *,
        speed: float = 0,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Give every event of the stretch to *sink*, in order, one after the other.

        Args:
            sink: told of each event; books are then as they were after it.
            speed: 1 as it was, 10 ten times as fast; 0 as fast as it can.
            progress: told the seconds that are played, and all of them as far as known.
        """
        from marketdata.recording.raw_reader import read_header
        from marketdata.recording.replay import replay
        from venues.feeds.factory import machine_of

        first_ns = read_header(self.tape.paths[0]).started_ns
        total_s = max(1, (self.tape.paths[-1].stat().st_mtime_ns - first_ns) // NS_PER_S)

        def make(header: SegmentHeader) -> FeedMachine:
            self._machine = machine_of(header)
            return self._machine

        def take(events: Sequence[MarketEvent]) -> None:
            for event in events:
                if self.tape.takes(event):
                    sink(event)
            played_s = (events[-1].received_ns - first_ns) // NS_PER_S
            progress(min(played_s, total_s - 1), total_s)

        self.items = await replay(self.tape.paths, make, speed=speed, sink=take, unfinished=True)
        progress(total_s, total_s)


def _within(
    found: list[tuple[Path, SegmentHeader]], since_ns: int, until_ns: int
) -> Iterator[tuple[Path, SegmentHeader]]:
    """Yield the segments of the sessions that touch the stretch."""
    sessions = [list(group) for _, group in groupby(found, lambda pair: pair[1].session)]
    starts = [session[0][1].started_ns for session in sessions]
    for number, session in enumerate(sessions):
        next_ns = starts[number + 1] if number + 1 < len(starts) else 0
        if until_ns and starts[number] >= until_ns:
            continue
        if next_ns and next_ns <= since_ns:
            continue
        yield from (pair for pair in session if not until_ns or pair[1].started_ns < until_ns)
