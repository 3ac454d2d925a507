"""Every journey of the matrix."""

from __future__ import annotations

from typing import Final

from tests.crash.matrix.journeys import (
    arrivals,
    bank,
    books,
    cycles,
    decisions,
    deposits,
    hedging,
    orders,
    payouts,
    settlement,
    spends,
    transfers,
)
from tests.crash.matrix.stage import Journey

JOURNEYS: Final[tuple[Journey, ...]] = (
    *books.JOURNEYS,
    *deposits.JOURNEYS,
    *arrivals.JOURNEYS,
    *decisions.JOURNEYS,
    *payouts.JOURNEYS,
    *spends.JOURNEYS,
    *bank.JOURNEYS,
    *transfers.JOURNEYS,
    *orders.JOURNEYS,
    *hedging.JOURNEYS,
    *settlement.JOURNEYS,
    *cycles.JOURNEYS,
)
FAMILIES: Final = tuple(dict.fromkeys(journey.family for journey in JOURNEYS))
