"""Every journey of the matrix."""

from __future__ import annotations

from typing import Final

from tests.crash.matrix.journeys import (
    arrivals,
    bank,
    books,
    compliance,
    cycles,
    decisions,
    deposits,
    hedging,
    held,
    held_coins,
    orders,
    payouts,
    settlement,
    settling,
    spends,
    transfers,
)
from tests.crash.matrix.stage import Journey

JOURNEYS: Final[tuple[Journey, ...]] = (
    *books.JOURNEYS,
    *deposits.JOURNEYS,
    *arrivals.JOURNEYS,
    *compliance.JOURNEYS,
    *decisions.JOURNEYS,
    *payouts.JOURNEYS,
    *held.JOURNEYS,
    *spends.JOURNEYS,
    *held_coins.JOURNEYS,
    *bank.JOURNEYS,
    *transfers.JOURNEYS,
    *orders.JOURNEYS,
    *hedging.JOURNEYS,
    *settlement.JOURNEYS,
    *settling.JOURNEYS,
    *cycles.JOURNEYS,
)
FAMILIES: Final = tuple(dict.fromkeys(journey.family for journey in JOURNEYS))
