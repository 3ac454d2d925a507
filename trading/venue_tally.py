"""What a reconciliation has seen: counts, and one hash over everything that either side said."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernel.ids import canonical
from venues.model import OrderReport, UnknownBalance, VenueBalance, VenueFill, VenueOrder


@dataclass(slots=True)
class Tally:
    """Counts and hash of one run; what is added twice counts twice."""

    counts: Counter[str] = field(default_factory=Counter)
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything so far, in hexadecimal."""
        return str(self._hash.hexdigest())

    def add_orders(self, ours: Sequence[VenueOrder], theirs: Sequence[OrderReport]) -> None:
        """Count orders of both sides."""
        self.counts["orders_ours"] += len(ours)
        self.counts["orders_theirs"] += len(theirs)
        self._add("o", ((o.client_order_id, str(o.state), o.executed_units) for o in ours))
        self._add(
            "O",
            (
                (r.client_order_id, r.venue_order_id, str(r.status), r.executed_units)
                for r in theirs
            ),
        )

    def add_fills(self, ours: Sequence[VenueFill], theirs: Sequence[VenueFill]) -> None:
        """Count trades of both sides."""
        self.counts["fills_ours"] += len(ours)
        self.counts["fills_theirs"] += len(theirs)
        for mark, fills in (("f", ours), ("F", theirs)):
            self._add(mark, ((f.id, f.base_units, f.quote_units, f.fee_units) for f in fills))

    def add_balances(self, posted: Mapping[str, int], stated: Iterable[VenueBalance]) -> None:
        """Count the assets of a snapshot that was steady."""
        told = sorted(stated, key=lambda item: item.asset)
        self.counts["assets"] = len({*posted, *(item.asset for item in told)})
        self._add("b", sorted(posted.items()))
        self._add("B", ((item.asset, item.free, item.locked, item.dust) for item in told))

    def add_unknown(self, stated: Sequence[UnknownBalance]) -> None:
        """Count the assets that are not registered."""
        self.counts["assets_unknown"] = len(stated)
        self._add("U", ((item.asset, item.amount) for item in stated))

    def _add(self, mark: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            self._hash.update(canonical((mark, *row)))
