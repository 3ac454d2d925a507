"""What does a hundred times as many accounts cost?

With a million accounts hardly two transfers of a batch touch the same page, and after each
checkpoint every touched page is written to the log in full. Beside it stands the book of 10,000
accounts, on the same server, in turn.
"""

from __future__ import annotations

from typing import Final

from bench.ledger_book import ACCOUNTS, BATCH, MANY, books, used
from bench.measure import Measured, Result, Shared, alternate

ROUNDS: Final = 3
BATCHES_PER_TURN: Final = 20
AT_LEAST: Final = 0.5


def measure(shared: Shared) -> Measured:
    """Post to a million accounts and to 10,000 in turn."""
    found = shared.once(books)
    many = found.many()
    with found.book("ledger_few") as few:
        rates = alternate(
            {
                "many": lambda: many.writing(BATCH, BATCHES_PER_TURN),
                "few": lambda: few.writing(BATCH, BATCHES_PER_TURN),
            },
            ROUNDS,
        )
    return Measured(
        [
            Result(
                name="ledger_1m",
                value=rates["many"],
                unit="transfers/s",
                baseline=f"the same over {ACCOUNTS:,} accounts",
                baseline_value=rates["few"],
                at_least=AT_LEAST,
            )
        ],
        found.conditions(
            f"{MANY:,} accounts with an overdraft guard, pairs at random, batches of {BATCH:,} "
            f"through the writer; {ROUNDS} turns of {BATCHES_PER_TURN * BATCH:,} transfers"
        ),
        used(),
    )
