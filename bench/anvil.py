"""The anvil that the benchmarks of a chain run on: nothing else is fast enough to be the limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from chain.simulators.anvil import find_anvil
from kernel.errors import OutsideUnavailable

REPOSITORY: Final = Path(__file__).resolve().parents[1]


def require_anvil() -> Path:
    """Return the binary.

    Raises:
        OutsideUnavailable: there is none.
    """
    binary = find_anvil(os.environ, [REPOSITORY / ".cache" / "npm", REPOSITORY])
    if binary is None:
        raise OutsideUnavailable(
            "no anvil was found", remedy="npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1"
        )
    return binary
