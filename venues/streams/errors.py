"""Errors of private streams.

::

    OutsideUnavailable
    └── VenueUnavailable
        └── StreamLost        the stream cannot be relied on any more: it is built anew
"""

from __future__ import annotations

from datetime import datetime

from venues.errors import VenueUnavailable
from venues.streams.model import GapReason


class StreamLost(VenueUnavailable):
    """The stream cannot be relied on any more; *since* is when it was last known to be good."""

    def __init__(self, reason: GapReason, detail: str, *, since: datetime) -> None:
        super().__init__(f"private stream lost ({reason}): {detail}")
        self.reason = reason
        self.detail = detail
        self.since = since
