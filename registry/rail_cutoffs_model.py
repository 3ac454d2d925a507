"""Cut-offs that were agreed with banks, or that the house keeps itself: by asset and rail. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from kernel.errors import BadInput
from registry.cutoffs import moment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RailCutoff:
    """Until when a payment in an asset by a rail has value the same day: a time on a wall.

    Attributes:
        local: what the clocks of *zone* show, without a zone of its own.
        zone: by its IANA name: ``Europe/Berlin``.
    """

    asset: str
    rail: str
    version: int = 1
    local: time
    zone: str

    def __post_init__(self) -> None:
        if self.local.tzinfo is not None:
            raise BadInput(f"the cut-off of {self.asset} names its zone twice")
        moment_of(date(2026, 1, 1), self.local, self.zone)

    def at(self, day: date) -> datetime:
        """Return the moment (UTC) of the cut-off on *day*."""
        return moment_of(day, self.local, self.zone)

    def day_of(self, moment: datetime) -> date:
        """Return which day it is in *zone* at *moment* (with a zone)."""
        return moment.astimezone(ZoneInfo(self.zone)).date()
