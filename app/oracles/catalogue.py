"""Every oracle, in the order in which they are asked: what the others rest on comes first."""

from __future__ import annotations

from typing import Final

from app.oracles.checks import arrivals, desk, events, holds, keys, ledger, payments, places, rest
from app.oracles.model import Oracle

JOURNAL: Final = Oracle(
    "journal",
    "Every balance, hold, block and root of every book follows from its journal.",
)
PLACES: Final = Oracle(
    "places",
    "Wallets, venues, banks and what is between them hold what the books say, item by item.",
    places.PLACES,
)
ON_CHAIN: Final = Oracle(
    "on-chain",
    "The chain itself has each payment at most once, and every block that was credited from.",
)

ORACLES: Final[tuple[Oracle, ...]] = (
    Oracle(
        "zero-sums",
        "In every book and asset the debits equal the credits, posted and pending.",
        (ledger.ZERO_SUMS,),
    ),
    Oracle(
        "no-forbidden-negatives",
        "No balance is below what the flags of its account allow.",
        (ledger.NO_FORBIDDEN_NEGATIVES,),
    ),
    JOURNAL,
    Oracle(
        "one-effect",
        "Every idempotency key has one row, and one effect.",
        keys.ONE_EFFECT,
    ),
    Oracle(
        "paid-once",
        "A payout leaves at most once, on whatever rail and however often it was sent.",
        payments.PAID_ONCE,
    ),
    Oracle(
        "deposited-once",
        "An arrival is booked once, where its state says, from a block that stands.",
        arrivals.DEPOSITED_ONCE,
    ),
    Oracle(
        "outbox",
        "Every event that is committed is told, each entity's in their order.",
        events.OUTBOX,
    ),
    Oracle(
        "holds-owned",
        "Every open hold has a row under way behind it, and each such row holds what it should.",
        holds.HOLDS_OWNED,
    ),
    Oracle(
        "states-and-postings",
        "What a row's state says is in its history and in the journal.",
        (*events.STATES, *payments.AGREE, *desk.AGREE),
    ),
    Oracle(
        "client-money",
        "What is held for clients covers what they are owed, asset by asset.",
        (ledger.CLIENT_MONEY,),
    ),
    PLACES,
    ON_CHAIN,
    Oracle(
        "at-rest",
        "Nothing is left that a worker should have finished, and nothing lies between books.",
        (ledger.CLEARING_ZERO, *rest.AT_REST),
    ),
)
