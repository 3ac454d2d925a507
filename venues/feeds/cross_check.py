"""Our book against the book that the venue gives by REST, at the same update. Pure.

The answer is of some update; by the time that it comes, ours may have gone on, or may not be there
yet. So what changed since the question is kept: levels that were touched after the answer's update
are left out, and an answer that is ahead of us waits until we have caught up with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from marketdata.book import L2Book
from marketdata.events import BookUpdate, Rows

SHOWN_MAX: Final = 3
"""Differing levels that are told."""


def differences(
    book: L2Book, bids: Rows, asks: Rows, *, later: Iterable[BookUpdate], is_whole: bool
) -> str:
    """Return in words where the book differs from the venue's; nothing: they agree.

    Args:
        book: ours, live, at the answer's update or after it.
        bids, asks: the venue's best levels, best first.
        later: our updates that go beyond the answer's update; their levels are not compared.
        is_whole: the venue gave all that it has: what else we have is a difference too.
    """
    touched_bids: set[int] = set()
    touched_asks: set[int] = set()
    for update in later:
        touched_bids.update(ticks for ticks, _ in update.bids)
        touched_asks.update(ticks for ticks, _ in update.asks)
    room = max(len(bids), len(asks)) + len(touched_bids) + len(touched_asks) + 1
    our_bids, our_asks = book.rows(room)
    found = [
        *_differing("bid", our_bids, bids, touched_bids, is_whole=is_whole),
        *_differing("ask", our_asks, asks, touched_asks, is_whole=is_whole),
    ]
    more = f" and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return ", ".join(found[:SHOWN_MAX]) + more


def _differing(
    name: str, ours: Rows, theirs: Rows, touched: set[int], *, is_whole: bool
) -> list[str]:
    """Return the levels that differ, as far out as both sides reach."""
    sign = -1 if name == "bid" else 1
    reach = [rows[-1][0] * sign for rows in (ours, theirs) if rows]
    if not reach:
        return []
    end = max(reach) if is_whole or len(reach) < 2 else min(reach)
    our_levels = {ticks: units for ticks, units in ours if ticks * sign <= end}
    their_levels = {ticks: units for ticks, units in theirs if units and ticks * sign <= end}
    return [
        f"{name} {ticks}: ours {our_levels.get(ticks, 0)}, theirs {their_levels.get(ticks, 0)}"
        for ticks in sorted(our_levels.keys() | their_levels.keys(), key=lambda t: t * sign)
        if ticks not in touched and our_levels.get(ticks, 0) != their_levels.get(ticks, 0)
    ]
