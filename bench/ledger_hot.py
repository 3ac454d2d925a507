"""Does it cost anything when every transfer is on the same account?

It must not: a book's postings are in one order anyway. Each transfer debits or credits one hot
account, in turn, against any of 10,000 others; beside it stand the same batches over pairs
at random, in the same book.
"""

from __future__ import annotations

import random
from typing import Final

from bench.ledger_book import ACCOUNTS, BATCH, books, used
from bench.measure import Measured, Result, Shared, alternate

ROUNDS: Final = 7
BATCHES_PER_TURN: Final = 20
AT_LEAST: Final = 0.95
HOT: Final = 0


class Hot:
    """Draws pairs that have the hot account on one side, debited and credited in turn."""

    def __init__(self) -> None:
        self._debited = False

    def __call__(self, chance: random.Random) -> tuple[int, int]:
        """Return the debited and the credited account."""
        other = chance.randrange(HOT + 1, ACCOUNTS)
        self._debited = not self._debited
        return (HOT, other) if self._debited else (other, HOT)


def measure(shared: Shared) -> Measured:
    """Post to one account and to all of them in turn."""
    found = shared.once(books)
    with found.book("ledger_hot") as book:
        pair = Hot()
        rates = alternate(
            {
                "hot": lambda: book.writing(BATCH, BATCHES_PER_TURN, pair),
                "uniform": lambda: book.writing(BATCH, BATCHES_PER_TURN),
            },
            ROUNDS,
        )
    return Measured(
        [
            Result(
                name="ledger_hot",
                value=rates["hot"],
                unit="transfers/s",
                baseline="the same with uniform pairs",
                baseline_value=rates["uniform"],
                at_least=AT_LEAST,
            )
        ],
        found.conditions(
            f"one account against {ACCOUNTS - 1:,} others, debited and credited in turn; batches of "
            f"{BATCH:,} through the writer; {ROUNDS} turns of {BATCHES_PER_TURN * BATCH:,} transfers"
        ),
        used(),
    )
