"""One Kraken book: the snapshot and the updates of its frames, held to the venue's checksum.

The checksum is made of the digits of prices and quantities, so the decimals of the pair must be known.
The instrument channel tells them; a snapshot that comes before it is read by its own longest texts. A
wrong guess cannot pass: the checksum would not agree.

Only the best ten levels of a side are under the checksum. What is deeper is compared with the venue's
own list by REST, as far as it has been still for a while: the list does not say of which moment it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.book import BookOutcome, L2Book, StitchRule
from marketdata.checksum import kraken_checksum
from marketdata.errors import OffGrid
from marketdata.events import BookUpdate, GapReason, Rows
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.kraken.frames import UNREADABLE, BookRow, nanoseconds
from venues.kraken.numbers import decimals_of, rows_of

STILL_NS: Final = 5_000_000_000
"""A level that changed within so long before an answer may be in it either way."""

AHEAD_NS: Final = 2_000_000_000
"""An answer may be ahead of the stream: what differs is doubted for so long before it is wrong."""

TOUCHED_MAX: Final = 20_000
"""Levels whose last change is remembered; more make room by forgetting those that are still."""

_BID, _ASK = 1, -1
"""By these prices are told apart that were touched, and which of two is the better one."""


_RestLevel = tuple[str, str, msgspec.Raw]


class _RestBook(msgspec.Struct, frozen=True, gc=False):
    asks: list[_RestLevel]
    bids: list[_RestLevel]


class _RestAnswer(msgspec.Struct, frozen=True, gc=False):
    result: dict[str, _RestBook]


_decode_rest: Final = msgspec.json.Decoder(_RestAnswer).decode


class _WentBack(Exception):
    """The venue's time went back."""


@dataclass(frozen=True, slots=True)
class BookFault:
    """Why a book cannot be shown until its next snapshot."""

    reason: GapReason
    detail: str


class BookFollower:
    """Follows one book; `book` is what may be shown."""

    def __init__(self, instrument: Instrument, depth: int) -> None:
        """Follow the book of *instrument*, subscribed to with *depth* levels of a side."""
        self._instrument = instrument
        self._grid = self._fine = Grid(instrument)
        self._depth = depth
        self._known = (0, 0)
        self._decimals = (0, 0)
        self._exact: L2Book | None = None
        self._touched: dict[int, int] = {}
        self._began_ns = 0
        self._exchange_ns = 0
        self._suspects: dict[int, str] = {}
        self._suspected_ns = 0
        self.book = self._new_book()
        self.proved_ns = 0
        """When the venue's own list last agreed, or the snapshot came."""

    @property
    def best(self) -> tuple[int, int] | None:
        """Return the best bid and ask as the venue has them, in ticks; None: a side is empty."""
        top = None if self._exact is None or not self.book.is_live else self._exact.top
        return None if top is None else (top.bid.ticks, top.ask.ticks)

    def tell_decimals(self, price: int, quantity: int) -> None:
        """Take over what the instrument channel says; it counts from the next snapshot on."""
        self._known = (price, quantity)

    def reset(self) -> None:
        """Show nothing until the next snapshot."""
        self.book.reset()
        self._touched.clear()
        self._suspects.clear()

    def take(self, row: BookRow, now_ns: int, *, is_snapshot: bool) -> BookUpdate | BookFault:
        """Apply what a frame says of this book."""
        try:
            if is_snapshot:
                self._begin(row, now_ns)
            exchange_ns = self._time_of(row)
            rows = self._rows(row)
        except _WentBack as error:
            self.reset()
            return BookFault(GapReason.SEQUENCE, str(error))
        except (BadInput, OffGrid) as error:
            self.reset()
            return BookFault(GapReason.MALFORMED, str(error))
        outcome = self._apply(*rows, row.checksum, is_snapshot=is_snapshot)
        reason = outcome.gap_reason
        if reason is not None:
            self.reset()
            return BookFault(reason, f"{outcome.value}; the venue's is {row.checksum}")
        if is_snapshot:
            self.proved_ns = now_ns
        return self._told(exchange_ns, rows, now_ns, is_snapshot=is_snapshot)

    def compare(self, body: bytes, now_ns: int) -> bool:
        """Compare with the venue's own list, an answer of ``/0/public/Depth``; tell if it agrees.

        Levels that have been still are compared, as far as the list and our book reach. An answer
        that cannot be read proves nothing, and one that differs may be ahead of our stream: the
        levels are suspected until an update changes them, or `convicted` finds that none did.
        """
        if not self.book.is_live:
            return False
        try:
            bids, asks = _listed(body, self._grid)
        except (BadInput, OffGrid, ValueError, *UNREADABLE):
            return False
        ours = self.book.rows(self._depth)
        self._suspects = {
            **self._differing(_BID, ours[0], bids, now_ns),
            **self._differing(_ASK, ours[1], asks, now_ns),
        }
        self._suspected_ns = now_ns
        if not self._suspects:
            self.proved_ns = now_ns
        return not self._suspects

    def convicted(self, now_ns: int) -> BookFault | None:
        """Return the fault of a level that differed and that no update has changed since."""
        if not self._suspects or now_ns - self._suspected_ns < AHEAD_NS:
            return None
        words = next(iter(self._suspects.values()))
        self.reset()
        return BookFault(GapReason.DISAGREES, words)

    def _begin(self, row: BookRow, now_ns: int) -> None:
        """Settle on the decimals of the pair, and make the books that go by them.

        With a snapshot every price counts as touched, also those that are not in it: an answer
        that was asked for before may still have them.
        """
        decimals = _decimals(row, self._known)
        if decimals != self._decimals or self._exact is None:
            self._decimals = decimals
            self._exact = self._exact_book(*decimals)
        self._touched.clear()
        self._suspects.clear()
        self._began_ns = now_ns
        self._exchange_ns = 0

    def _time_of(self, row: BookRow) -> int:
        """Return the venue's time of an update.

        Two updates of one level that change places leave a book that had been right once, with the
        checksum of that moment: only their times tell.

        Raises:
            _WentBack: the update before this one was later.
        """
        at_ns = nanoseconds(row.timestamp)
        if at_ns and at_ns < self._exchange_ns:
            raise _WentBack("an update is older than the one before it")
        self._exchange_ns = at_ns or self._exchange_ns
        return at_ns

    def _exact_book(self, price_decimals: int, quantity_decimals: int) -> L2Book:
        """Return the book that the checksum is made of: the shown one, if its units are as fine.

        Raises:
            BadInput: the venue writes coarser prices than the instrument's grid has.
        """
        item = self._instrument
        finer = price_decimals - item.price_scale
        step = item.tick * int(10**finer) if finer >= 0 else item.tick // int(10**-finer)
        if not step:
            raise BadInput(f"{item.symbol} is written with {price_decimals} decimals only")
        surplus = item.base.scale - quantity_decimals
        checksum = kraken_checksum(price_step=step, units_per_lot=int(10 ** max(surplus, 0)))
        exact = L2Book(
            item.venue,
            item.symbol,
            StitchRule.SNAPSHOT_DELTA,
            depth=self._depth,
            checksum=checksum,
        )
        fine = (
            item if surplus >= 0 else replace(item, base=Asset(item.base.code, quantity_decimals))
        )
        self._fine = Grid(fine, decimals=quantity_decimals)
        self.book = exact if surplus >= 0 else self._new_book()
        return exact

    def _new_book(self) -> L2Book:
        item = self._instrument
        return L2Book(item.venue, item.symbol, StitchRule.SNAPSHOT_DELTA, depth=self._depth)

    def _rows(self, row: BookRow) -> tuple[Rows, Rows]:
        return rows_of(self._fine, row.bids), rows_of(self._fine, row.asks)

    def _apply(self, bids: Rows, asks: Rows, checksum: int, *, is_snapshot: bool) -> BookOutcome:
        exact = self._exact
        if exact is None or (not self.book.is_live and not is_snapshot):
            return BookOutcome.GAP
        if is_snapshot:
            outcome = exact.snapshot(1, bids, asks, checksum=checksum)
        else:
            outcome = exact.apply(0, 0, bids, asks, checksum)
        if exact is not self.book and not outcome.is_fault:
            assert exact.sequence is not None
            shown = (self._coarse(side) for side in exact.rows(self._depth))
            return self.book.snapshot(exact.sequence, *shown)
        return outcome

    def _coarse(self, rows: Rows) -> Rows:
        """Return rows in our units; a level of less than one of them is none."""
        step = int(10 ** (self._decimals[1] - self._instrument.base.scale))
        return tuple([(ticks, lots // step) for ticks, lots in rows])

    def _told(
        self, exchange_ns: int, rows: tuple[Rows, Rows], now_ns: int, *, is_snapshot: bool
    ) -> BookUpdate:
        book, exact, (bids, asks) = self.book, self._exact, rows
        assert exact is not None
        assert book.sequence is not None
        touched = self._touched
        for ticks, _ in bids:
            touched[ticks] = now_ns
        for ticks, _ in asks:
            touched[-ticks] = now_ns
        if self._suspects:
            for key in [key for key in self._suspects if touched.get(key) == now_ns]:
                del self._suspects[key]
        if len(touched) > TOUCHED_MAX:
            self._forget_still(now_ns)
        if exact is not book:
            bids, asks = self._coarse(bids), self._coarse(asks)
        return BookUpdate(
            venue=book.venue,
            symbol=book.symbol,
            first=book.sequence,
            last=book.sequence,
            is_snapshot=is_snapshot,
            bids=bids + exact.cut_bids,
            asks=asks + exact.cut_asks,
            exchange_ns=exchange_ns,
            received_ns=now_ns,
        )

    def _differing(
        self, sign: int, mine: Rows, theirs: Mapping[int, tuple[int, int]], now_ns: int
    ) -> dict[int, str]:
        """Return where still levels of ours are not theirs, and how, in words."""
        have, found = dict(mine), {}
        for ticks in _common(sign, have, theirs, self._depth):
            if now_ns - self._touched.get(ticks * sign, self._began_ns) < STILL_NS:
                continue
            low, high = theirs.get(ticks, (0, 0))
            units = have.get(ticks, 0)
            if not low <= units <= high:
                side = "bid" if sign == _BID else "ask"
                price = self._instrument.price_text(ticks)
                found[ticks * sign] = (
                    f"the {side} of {price} is {units} units here and {low} to {high} there"
                )
        return found

    def _forget_still(self, now_ns: int) -> None:
        self._touched = {
            key: at_ns for key, at_ns in self._touched.items() if now_ns - at_ns < STILL_NS
        }


def _decimals(row: BookRow, known: tuple[int, int]) -> tuple[int, int]:
    """Return the decimals of prices and quantities: what is known, or the longest texts."""
    levels = (*row.bids, *row.asks)
    return (
        max([known[0], *(decimals_of(level.price) for level in levels)]),
        max([known[1], *(decimals_of(level.qty) for level in levels)]),
    )


def _listed(
    body: bytes, grid: Grid
) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """Read a list: ticks to the least and the most units that its cut quantity may stand for."""
    (book,) = _decode_rest(body).result.values()

    def side(rows: Iterable[_RestLevel]) -> Iterator[tuple[int, tuple[int, int]]]:
        for price, quantity, _ in rows:
            finest = grid.instrument.base.scale - len(quantity.partition(".")[2])
            step, units = int(10 ** max(finest, 0)), grid.units(quantity)
            yield grid.ticks(price), (units - step + 1, units + step - 1)

    return dict(side(book.bids)), dict(side(book.asks))


def _common(
    sign: int, mine: Mapping[int, int], theirs: Mapping[int, object], depth: int
) -> list[int]:
    """Return the prices that both speak about: neither reaches further than its last level.

    Ours is whole if it has fewer levels than were subscribed to.
    """
    reaches = [min(t * sign for t in theirs)] if theirs else []
    if len(mine) >= depth:
        reaches.append(min(t * sign for t in mine))
    floor = max(reaches, default=None)
    return [t for t in mine.keys() | theirs.keys() if floor is None or t * sign >= floor]
