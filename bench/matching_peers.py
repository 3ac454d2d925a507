"""Is the book at least twice as fast as the order books of Python that others would use?

A tape of limit orders and cancels, which is all that the peers know. Everyone gets it in types of
its own, made beforehand: `NewOrder` and an id for ours, `Order` objects with the id and Decimal
price they make for pyorderbook, plain integers for lightmatchingengine, which numbers orders itself
as the tape does. What each of them answers is kept until its turn ends, as a venue needs it.

About 300 orders rest, on some thirty prices a side: lightmatchingengine looks at every price for
its best one and at every order of a price to cancel one, so a deeper book would only be worse for
it. Before anything is timed, all three must make the same trades of the tape, one by one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from lightmatchingengine.lightmatchingengine import (  # type: ignore[import-untyped]  # has no types
    LightMatchingEngine,
)

from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from matching.book import OrderBook
from matching.model import NewOrder, Side, Traded
from matching.testing import Cancel, Command, Replace, limit_cancel_tape

SEED: Final = 7
COMMANDS: Final = 30_000
SYMBOL: Final = "BTCUSD"
AT_LEAST: Final = 2.0

Trade = tuple[int, int, int]
"""The maker's order id, price in ticks, lots."""

Answers = list[Any]
"""What a book said, in types of its own."""


def measure(shared: Shared) -> Measured:
    """Let three books play the same tape in turn."""
    del shared
    tape = limit_cancel_tape(SEED, COMMANDS)
    trades = _require_the_same_trades(tape)
    contestants: dict[str, Callable[[], Turn]] = {
        "ours": lambda: _ours(tape, []),
        "lightmatchingengine": lambda: _light(tape, []),
        "pyorderbook": lambda: _pyorderbook(tape, []),
    }
    rates = alternate(contestants)
    return Measured(
        [
            Result(
                name=f"matching_limit_cancel.{peer}",
                value=rates["ours"],
                unit="commands/s",
                baseline=f"{peer} (peer)",
                baseline_value=rates[peer],
                at_least=AT_LEAST,
            )
            for peer in ("lightmatchingengine", "pyorderbook")
        ],
        {
            "input": f"{COMMANDS:,} limit orders and cancels, about 300 orders resting",
            "timed": "commands in the types of each, answers kept; making orders is not timed",
            "trades": f"{trades:,}, the same of all three",
        },
        versions("lightmatchingengine", "pyorderbook", "msgspec"),
    )


def _ours(tape: Sequence[Command], answers: Answers) -> Turn:
    book = OrderBook()
    commands = [
        command.order_id if isinstance(command, Cancel) else command
        for command in _limits_and_cancels(tape)
    ]

    def turn() -> int:
        trade_id = 1
        for command in commands:
            if isinstance(command, NewOrder):
                events = book.submit(command, trade_id)
                # Of such orders all that follows `Accepted` are trades.
                trade_id += len(events) - 1
                answers.append(events)
            else:
                answers.append(book.cancel(command))
        return len(commands)

    return turn


def _light(tape: Sequence[Command], answers: Answers) -> Turn:
    engine = LightMatchingEngine()
    # What it takes for a cancel is an id, for an order a price, a quantity and a side: 1 buys.
    commands = [
        (command.order_id, 0, 0)
        if isinstance(command, Cancel)
        else (command.price_ticks, command.quantity_lots, 1 if command.side is Side.BUY else 2)
        for command in _limits_and_cancels(tape)
    ]

    def turn() -> int:
        for number, quantity, side in commands:
            if side:
                answers.append(engine.add_order(SYMBOL, number, quantity, side))
            else:
                answers.append(engine.cancel_order(number, SYMBOL))
        return len(commands)

    return turn


def _pyorderbook(tape: Sequence[Command], answers: Answers) -> Turn:
    library = _pyorderbook_library()
    book = library.Book()
    commands = _pyorderbook_commands(library, tape)

    def turn() -> int:
        for order, is_cancel in commands:
            answers.append(book.cancel(order) if is_cancel else book.match(order))
        return len(commands)

    return turn


def _pyorderbook_commands(library: Any, tape: Sequence[Command]) -> list[tuple[Any, bool]]:
    """Return its orders, and whether each is to be cancelled then; `number` is our id of it."""
    orders: dict[int, Any] = {}
    commands = []
    for command in _limits_and_cancels(tape):
        if isinstance(command, Cancel):
            commands.append((orders[command.order_id], True))
            continue
        make = library.bid if command.side is Side.BUY else library.ask
        order = make(SYMBOL, command.price_ticks, command.quantity_lots)
        order.number = command.order_id
        orders[command.order_id] = order
        commands.append((order, False))
    return commands


def _pyorderbook_library() -> Any:
    # Not at the top: it sets up the root logger when it is imported, for every benchmark there is.
    return importlib.import_module("pyorderbook")


def _limits_and_cancels(tape: Sequence[Command]) -> Iterator[NewOrder | Cancel]:
    for command in tape:
        if isinstance(command, Replace):
            raise TypeError("the peers replace nothing")
        yield command


def _require_the_same_trades(tape: Sequence[Command]) -> int:
    """Let all three play the tape once and compare every trade; return how many there were."""
    ours, light, other = Answers(), Answers(), Answers()
    _ours(tape, ours)()
    _light(tape, light)()
    _pyorderbook(tape, other)()
    expected: list[Trade] = [
        (event.maker_order_id, event.price_ticks, event.quantity_lots)
        for answer in ours
        if isinstance(answer, tuple)
        for event in answer
        if isinstance(event, Traded)
    ]
    if expected != _light_trades(light) or expected != _pyorderbook_trades(other):
        raise AssertionError("the books did not make the same trades")
    return len(expected)


def _light_trades(answers: Answers) -> list[Trade]:
    """Return the trades of the makers: it also tells one of the taker at every price."""
    return [
        (trade.order_id, trade.trade_price, trade.trade_qty)
        for answer in answers
        if isinstance(answer, tuple)
        for trade in answer[1]
        if trade.order_id != answer[0].order_id
    ]


def _pyorderbook_trades(answers: Answers) -> list[Trade]:
    blotters = [answer for answer in answers if answer is not None]
    numbers = {blotter.order.id: blotter.order.number for blotter in blotters}
    return [
        (numbers[trade.standing_order_id], int(trade.fill_price), trade.fill_quantity)
        for blotter in blotters
        for trade in blotter.trades
    ]
