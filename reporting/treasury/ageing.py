"""How late is what is owed, in business days of its asset. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date, timedelta
from typing import Final

from registry.calendars import AnyCalendar, count_business_days
from reporting.treasury.model import BUCKETS, AgedItem, AgedTotal, Due

DAYS_COUNTED_MAX: Final = 366
"""Calendar days that are looked at: what is older is in the last bucket whatever its exact age."""

NOT_DUE: Final = -1
_DAY: Final = timedelta(days=1)


def age_items(
    items: Iterable[Due], *, today: date, calendars: Callable[[str], Collection[AnyCalendar]]
) -> tuple[AgedItem, ...]:
    """Return the items with their age, the oldest first.

    An item that was due on a Friday is of no day on the Saturday and of one on the Monday.

    Args:
        calendars: by which days an asset (its code) moves.
    """
    aged = []
    for item in items:
        days = NOT_DUE
        if item.value_date <= today:
            since = max(item.value_date, today - DAYS_COUNTED_MAX * _DAY)
            days = count_business_days(since, today, calendars(item.asset))
        aged.append(AgedItem(due=item, days=days, bucket=bucket_of(days)))
    return tuple(sorted(aged, key=lambda x: (-x.days, x.due.value_date, x.due.reference)))


def bucket_of(days: int) -> str:
    """Return the name of the bucket of an age."""
    return next(
        bucket.name
        for bucket in BUCKETS
        if bucket.first <= days and (bucket.last is None or days <= bucket.last)
    )


def sum_ages(items: Iterable[AgedItem]) -> tuple[AgedTotal, ...]:
    """Return the items summed by party, asset, direction and bucket, in the order of the buckets."""
    sums: dict[tuple[str, str, bool, str], tuple[int, int]] = {}
    for item in items:
        due = item.due
        key = (due.party, due.asset, due.units > 0, item.bucket)
        count, units = sums.get(key, (0, 0))
        sums[key] = (count + 1, units + abs(due.units))
    order = {bucket.name: number for number, bucket in enumerate(BUCKETS)}
    return tuple(
        AgedTotal(party=party, asset=asset, to_us=to_us, bucket=bucket, items=count, units=units)
        for (party, asset, to_us, bucket), (count, units) in sorted(
            sums.items(), key=lambda x: (x[0][0], x[0][1], not x[0][2], order[x[0][3]])
        )
    )
