"""What trading asks of the outside world: the books that the feeds of this process keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kernel.money import Asset
from marketdata.consolidated import VenueBook


class BookSource(Protocol):
    """Whoever keeps books gives the newest of a pair, never waiting for anything."""

    def books(self, base: Asset, quote: Asset) -> Sequence[VenueBook]:
        """Return each venue's newest book of the pair, and what that venue charges a taker.

        A venue that has no book at the moment is there with None: who asks has to know that it is
        missing. An empty answer says that nobody watches the pair.
        """
        ...
