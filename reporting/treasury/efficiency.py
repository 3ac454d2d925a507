"""What netting saved, and how much was settled on time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

from reporting.treasury.model import Efficiency, Settled

PPM: Final = 1_000_000


def measure_efficiency(items: Iterable[Settled], *, today: date) -> tuple[Efficiency, ...]:
    """Return gross, net, paid and punctuality by asset.

    An item that nets to zero moves nothing: it counts in what was saved, not in what was on time. One whose
    value date is still to come counts in neither.
    """
    by_asset: dict[str, list[Settled]] = {}
    for item in items:
        by_asset.setdefault(item.asset, []).append(item)
    return tuple(_measure(asset, mine, today) for asset, mine in sorted(by_asset.items()))


def _measure(asset: str, items: list[Settled], today: date) -> Efficiency:
    gross = sum(item.gross_pay + item.gross_receive for item in items)
    net = sum(item.net for item in items)
    moving = [item for item in items if item.net]
    on_time = sum(x.final_on is not None and x.final_on <= x.value_date for x in moving)
    late = sum(x.final_on is not None and x.final_on > x.value_date for x in moving)
    waiting = sum(x.final_on is None and x.value_date < today for x in moving)
    due = on_time + late + waiting
    return Efficiency(
        asset=asset,
        gross=gross,
        net=net,
        paid=sum(item.paid for item in items),
        saved_ppm=(gross - net) * PPM // gross if gross else 0,
        items=len(moving),
        on_time=on_time,
        late=late,
        open=waiting,
        on_time_ppm=on_time * PPM // due if due else 0,
    )
