"""What is owed without a deal of ours behind it, as it is brought in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from settlement.model import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedObligation:
    """What is owed: *amount* in smallest units; *key* is its identity for ever (file and line).

    *product* says what it comes from, for the agreements that cover it.
    """

    key: str
    party: str
    direction: Direction
    asset: str
    amount: int
    value_date: date
    product: str = "other"
