"""How many commands a second does one order book take, when every kind of order arrives?

One instrument, one process, one thread: limit orders beside the middle and through it, post-only,
market, immediate-or-cancel and fill-or-kill orders, cancels, replacements in place and anew, and
every prevention of self-trades. Each command is decided, applied and answered with its events, which
are kept; the ids of trades are counted on as a venue would. Making the commands is not timed.

The events of every turn are hashed: a turn that answered otherwise than the first is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from matching.book import OrderBook
from matching.digest import event_hash
from matching.model import Event
from matching.testing import Command, mixed_tape, play

SEED: Final = 7
COMMANDS: Final = 100_000
AT_LEAST: Final = 300_000
"""Commands a second: 3.3 microseconds each, in plain Python."""


def measure(shared: Shared) -> Measured:
    """Let a new book play the same tape in every turn."""
    del shared
    tape = mixed_tape(SEED, COMMANDS)
    journals: list[list[Event]] = []
    rates = alternate({"ours": lambda: _turn(tape, journals)})
    return Measured(
        [
            Result(
                name="matching_mixed",
                value=rates["ours"],
                unit="commands/s",
                at_least=AT_LEAST,
            )
        ],
        {
            "input": f"{COMMANDS:,} commands of every kind, about 250 orders resting",
            "timed": "deciding, applying, making and keeping the events, counting trades",
            "events": f"{len(journals[0]):,} in each turn, SHA-256 {_one_hash(journals)}",
        },
        versions("msgspec"),
    )


def _turn(tape: Sequence[Command], journals: list[list[Event]]) -> Turn:
    book = OrderBook()

    def turn() -> int:
        journals.append(play(book, tape))
        return len(tape)

    return turn


def _one_hash(journals: Sequence[Sequence[Event]]) -> str:
    hashes = {event_hash(journal) for journal in journals}
    if len(hashes) != 1:
        raise AssertionError("the same commands gave different events")
    return hashes.pop()
