"""Whether a book may be acted on, by age and by shape."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from marketdata.model import BookView


class Freshness(StrEnum):
    """The verdict on a book, the first that applies."""

    MISSING = "missing"
    STALE = "stale"
    ONE_SIDED = "one-sided"
    CROSSED = "crossed"
    FRESH = "fresh"


def judge(view: BookView | None, *, now: datetime, age_max: timedelta) -> Freshness:
    """Return whether *view* may be used at *now*; a time of arrival in the future is stale too."""
    if view is None:
        return Freshness.MISSING
    if not -age_max <= now - view.received_at <= age_max:
        return Freshness.STALE
    top = view.top
    if top is None:
        return Freshness.ONE_SIDED
    if top.bid.ticks >= top.ask.ticks:
        return Freshness.CROSSED
    return Freshness.FRESH
