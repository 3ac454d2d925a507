"""What stands in the way of a month's end, and what two people may let pass. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from reporting.errors import MonthEndRefused
from reporting.month_end.model import Obstacle, Standing, Waiver

PERIOD_OPEN: Final = "period-open"
UNRECONCILED: Final = "reconciliation"
NAMED_MAX: Final = 20


def find_obstacles(standing: Standing) -> tuple[Obstacle, ...]:
    """Return everything that stands in the way, what may never pass first."""
    found = [
        Obstacle(
            key=f"unbalanced:{asset}",
            what=f"debits of {asset} are not its credits",
            may_pass=False,
        )
        for asset in standing.unbalanced
    ]
    found += [
        Obstacle(
            key=f"untied:{asset}",
            what=f"the position in {asset} is not what equity and results say",
            may_pass=False,
        )
        for asset in standing.untied
    ]
    faults = standing.snapshot_faults
    if faults is None:
        faults = ("the prices of the month's end are not locked",)
    found += [Obstacle(key="prices", what=fault, may_pass=False) for fault in faults]
    closed = standing.closed_through
    if closed is None or closed < standing.last:
        found.append(
            Obstacle(
                key=PERIOD_OPEN,
                what=f"the period is open: it is closed through {closed or 'no day'}, "
                f"not {standing.last}",
                may_pass=True,
            )
        )
    if not standing.is_reconciled:
        found.append(
            Obstacle(
                key=UNRECONCILED,
                what="the books were not compared with chains, venues and banks since the month ended",
                may_pass=True,
            )
        )
    found += [
        Obstacle(
            key=f"break:{item.id}" + ("" if item.amount is None else f":{item.amount}"),
            what=f"{item.place}: {item.what}, since {item.since}",
            may_pass=True,
        )
        for item in standing.breaks
    ]
    return tuple(found)


def require_passed(
    obstacles: Collection[Obstacle], waivers: Mapping[str, Waiver]
) -> tuple[tuple[Obstacle, Waiver], ...]:
    """Return the obstacles with the waivers that let them pass.

    Raises:
        MonthEndRefused: names every obstacle that nobody may let pass, or nobody has.
    """
    wrong = [item for item in obstacles if not item.may_pass]
    missing = [item for item in obstacles if item.may_pass and item.key not in waivers]
    if wrong or missing:
        named = [f"{item.key}: {item.what}" for item in (*wrong, *missing)]
        more = f"; and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
        raise MonthEndRefused(
            "; ".join(named[:NAMED_MAX]) + more,
            remedy="Resolve them; of a break or an open period two people may say why it may pass: "
            "`causeway report waive`",
        )
    return tuple((item, waivers[item.key]) for item in obstacles)
