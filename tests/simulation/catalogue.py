"""Everything that may happen in a day."""

from __future__ import annotations

from typing import Final

from tests.simulation import (
    steps,
    steps_bank,
    steps_coins,
    steps_compliance,
    steps_quotes,
    steps_venue,
)
from tests.simulation.stepping import Step

STEPS: Final[tuple[Step, ...]] = (
    *steps.STEPS,
    *steps_bank.STEPS,
    *steps_coins.STEPS,
    *steps_compliance.STEPS,
    *steps_quotes.STEPS,
    *steps_venue.STEPS,
)
