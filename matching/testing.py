"""Tapes of commands from a seed, and the loop that plays them.

A tape is the same on every Python: the dice are our own, since nobody promises that those of the
standard library fall alike in every version.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from matching.book import OrderBook
from matching.model import Event, NewOrder, Rejected, SelfTradePrevention, Side, TimeInForce, Traded

OWNERS: Final = tuple(f"owner-{number}" for number in range(8))
MID_TICKS: Final = 100_000
SPREAD_TICKS: Final = 40
"""How far from the middle a passive order is placed at most."""
RESTING_WANTED: Final = 300
"""About how many orders rest: below it a tape has more orders than cancels, above it fewer."""


class Cancel(Struct, frozen=True, gc=False):
    """A command: take this order off the book."""

    order_id: int


class Replace(Struct, frozen=True, gc=False):
    """A command: give this order these terms."""

    order_id: int
    quantity_lots: int
    price_ticks: int
    display_lots: int | None = None


Command = NewOrder | Cancel | Replace


class Dice:
    """A linear congruential generator with Knuth's constants for 64 bits (MMIX)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def roll(self, sides: int) -> int:
        """A number from 0 below `sides`, of the upper bits: the lower ones repeat soon."""
        self._state = (6364136223846793005 * self._state + 1442695040888963407) % 2**64
        return (self._state >> 33) % sides


def play(book: OrderBook, tape: Sequence[Command]) -> list[Event]:
    """Give a tape to a book; all events in order. Trades are numbered from 1."""
    journal: list[Event] = []
    trade_id = 1
    for command in tape:
        events = apply(book, command, trade_id)
        journal += events
        if len(events) > 1:
            trade_id += count_trades(events)
    return journal


def apply(book: OrderBook, command: Command, first_trade_id: int) -> tuple[Event, ...]:
    """Give one command to a book."""
    if isinstance(command, NewOrder):
        return book.submit(command, first_trade_id)
    if isinstance(command, Cancel):
        return (book.cancel(command.order_id),)
    return book.replace(
        command.order_id,
        command.quantity_lots,
        command.price_ticks,
        first_trade_id,
        command.display_lots,
    )


def count_trades(events: Sequence[Event]) -> int:
    """How many of these events are trades."""
    return sum([type(event) is Traded for event in events])


def mixed_tape(seed: int, length: int) -> list[Command]:
    """Commands of every kind: what a busy book with market makers and takers gets.

    In 100: 24 cancels, 12 replacements (half of them shrink the quantity in place), 36 limit orders
    and 10 post-only orders beside the middle, 5 limit orders through it, 5 market orders, 5
    immediate-or-cancel and 3 fill-or-kill. A quarter of the orders prevents self-trades. Cancels and
    replacements name orders that rest; a book plays along to know them.
    """
    return list(_Author(seed).mixed(length))


def limit_cancel_tape(seed: int, length: int) -> list[Command]:
    """Good-till-cancelled limit orders and cancels of resting ones; one order in ten may trade."""
    return list(_Author(seed).limit_and_cancel(length))


class _Author:
    """Writes a tape, with a book beside it to know which orders rest."""

    def __init__(self, seed: int) -> None:
        self._dice = Dice(seed)
        self._book = OrderBook()
        self._mid = MID_TICKS
        self._resting: list[int] = []
        self._last_id = 0

    def mixed(self, length: int) -> Iterator[Command]:
        for _ in range(length):
            self._mid += self._dice.roll(3) - 1
            yield self._noted(self._any_command(self._dice.roll(100)))

    def limit_and_cancel(self, length: int) -> Iterator[Command]:
        for _ in range(length):
            self._mid += self._dice.roll(3) - 1
            cancels = 60 if len(self._resting) > RESTING_WANTED else 30
            order_id = self._live() if self._dice.roll(100) < cancels else None
            if order_id is not None:
                yield self._noted(Cancel(order_id))
            else:
                yield self._noted(self._limit(through=self._dice.roll(10) == 0, prevents=False))

    def _any_command(self, roll: int) -> Command:
        order_id = self._live() if roll < 36 else None
        if order_id is None:
            return self._order(roll)
        return Cancel(order_id) if roll % 3 else self._replacement(order_id)

    def _order(self, roll: int) -> NewOrder:
        if roll < 72:
            return self._limit()
        if roll < 82:
            return self._limit(post_only=True)
        if roll < 87:
            return self._limit(through=True)
        if roll < 92:
            return self._limit(TimeInForce.IOC, has_price=False)
        if roll < 97:
            return self._limit(TimeInForce.IOC, through=True)
        return self._limit(TimeInForce.FOK, through=True)

    def _limit(
        self,
        force: TimeInForce = TimeInForce.GTC,
        *,
        through: bool = False,
        has_price: bool = True,
        post_only: bool = False,
        prevents: bool = True,
    ) -> NewOrder:
        dice = self._dice
        side = Side.BUY if dice.roll(2) else Side.SELL
        # The smaller of two rolls: most orders stand near the middle.
        distance = 1 + min(dice.roll(SPREAD_TICKS), dice.roll(SPREAD_TICKS))
        away = distance if side is Side.SELL else -distance
        self._last_id += 1
        return NewOrder(
            order_id=self._last_id,
            owner=OWNERS[dice.roll(len(OWNERS))],
            side=side,
            quantity_lots=1 + dice.roll(100),
            price_ticks=self._mid + (-away if through else away) if has_price else None,
            time_in_force=force,
            post_only=post_only,
            self_trade_prevention=self._prevention() if prevents else SelfTradePrevention.NONE,
        )

    def _prevention(self) -> SelfTradePrevention:
        if self._dice.roll(3):
            return SelfTradePrevention.NONE
        modes = tuple(SelfTradePrevention)
        return modes[self._dice.roll(len(modes))]

    def _replacement(self, order_id: int) -> Replace:
        order = self._book.find(order_id)
        assert order is not None
        if self._dice.roll(2):
            return Replace(order_id, (order.remaining_lots + 1) // 2, order.price_ticks)
        step = self._dice.roll(11) - 5
        return Replace(order_id, 1 + self._dice.roll(100), order.price_ticks + step)

    def _live(self) -> int | None:
        """A resting order; those found dead on the way are forgotten."""
        resting = self._resting
        while resting:
            place = self._dice.roll(len(resting))
            order_id = resting[place]
            if self._book.find(order_id) is not None:
                return order_id
            resting[place] = resting[-1]
            resting.pop()
        return None

    def _noted(self, command: Command) -> Command:
        events = apply(self._book, command, 1)
        rests = isinstance(command, NewOrder) and not isinstance(events[0], Rejected)
        if rests and self._book.find(command.order_id) is not None:
            self._resting.append(command.order_id)
        return command
