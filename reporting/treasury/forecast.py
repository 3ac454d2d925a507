"""Funding by day: what is there, what is expected, what would be missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Final

from kernel.errors import BadInput
from reporting.treasury.model import Expected, Forecast, ForecastDay

HORIZON_MAX: Final = 366
_DAY: Final = timedelta(days=1)


def forecast_funding(
    expected: Iterable[Expected], available: Mapping[str, int], *, first: date, days: int
) -> Forecast:
    """Return every asset on *days* days from *first* on.

    What was due earlier counts on the first day: what we owe still leaves, and what is owed to us is
    shown as overdue beside it. An asset is in it that is available or expected.

    Args:
        available: what can be paid with, by asset, when the first day begins.

    Raises:
        BadInput: no day, or more than `HORIZON_MAX`.
    """
    if not 1 <= days <= HORIZON_MAX:
        raise BadInput(f"a forecast is of 1 to {HORIZON_MAX} days, not {days}")
    last = first + (days - 1) * _DAY
    incoming: dict[tuple[str, date], int] = {}
    outgoing: dict[tuple[str, date], int] = {}
    overdue: dict[str, int] = {}
    later: dict[str, tuple[int, int]] = {}
    assets = {asset for asset, units in available.items() if units}
    for item in expected:
        assets.add(item.asset)
        comes, leaves = max(item.units, 0), max(-item.units, 0)
        if item.value_date > last:
            before = later.get(item.asset, (0, 0))
            later[item.asset] = (before[0] + comes, before[1] + leaves)
            continue
        if item.value_date < first:
            overdue[item.asset] = overdue.get(item.asset, 0) + comes
        key = (item.asset, max(item.value_date, first))
        incoming[key] = incoming.get(key, 0) + comes
        outgoing[key] = outgoing.get(key, 0) + leaves
    found: list[ForecastDay] = []
    for asset in sorted(assets):
        opening = alone = available.get(asset, 0)
        for number in range(days):
            day = first + number * _DAY
            comes, leaves = incoming.get((asset, day), 0), outgoing.get((asset, day), 0)
            closing, alone = opening + comes - leaves, alone - leaves
            found.append(
                ForecastDay(
                    asset=asset,
                    day=day,
                    opening=opening,
                    incoming=comes,
                    outgoing=leaves,
                    overdue=overdue.get(asset, 0) if day == first else 0,
                    closing=closing,
                    short=max(0, -closing),
                    short_without=max(0, -alone),
                )
            )
            opening = closing
    return Forecast(days=tuple(found), later=dict(sorted(later.items())))
