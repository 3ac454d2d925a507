"""Whatever is drawn by lot in a test of faults is drawn from a seed, so that it can be drawn again."""

from __future__ import annotations

import os
import sys
from random import SystemRandom
from typing import Final

SEED_VARIABLE: Final = "CAUSEWAY_FAULTS_SEED"
"""Names the seed of a run that is to be drawn again."""


def fresh_seed() -> int:
    """Return a seed, and print how the same is drawn again: pytest shows it of a test that fails."""
    given = os.environ.get(SEED_VARIABLE)
    seed = SystemRandom().randrange(1_000_000) if given is None else int(given)
    sys.stdout.write(f"{SEED_VARIABLE}={seed} draws the same again\n")
    return seed
