"""The loss limit of a desk's day: judged purely, and the switch that it turns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from registry.queries import get_asset
from risk.controls import own_control, set_control
from risk.loss_limits import judge_loss
from risk.model import Control, ControlState
from risk.store import find_desk_limits

ACTOR: Final = "system:loss-watch"
BLIND_MAX: Final = timedelta(minutes=5)
"""A result may be unknown for so long: a feed that reconnects is no reason to call people."""


async def watch_losses(
    conn: AsyncConnection, desk: str, day_pnl_units: int, now: datetime
) -> Control:
    """Tighten the desk's switch if the day lost too much; return it as it is after that.

    It never loosens: after a bad day two people resume, and on the same day they also raise the limit,
    else the next look tightens again.

    Args:
        day_pnl_units: the profit of the UTC day so far in the currency of the desk's limits, a loss
            negative.
    """
    limits, before = await find_desk_limits(conn, desk), await own_control(conn, desk)
    state = judge_loss(limits, day_pnl_units)
    if limits is None or state.strictness <= before.state.strictness:
        return before
    money = await get_asset(conn, limits.currency)
    allowed = money.format(limits.loss_units or 0)
    reason = f"the day lost {money.format(-day_pnl_units)} of {allowed}"
    return await set_control(conn, desk, state, by=ACTOR, reason=reason, now=now)


async def lose_sight(
    conn: AsyncConnection, desk: str, *, since: datetime, now: datetime
) -> Control:
    """Let a desk only take risk off whose result nobody has known for `BLIND_MAX`.

    A limit that nobody can judge holds nothing. Before that time, or without a limit, nothing happens.
    """
    limits, before = await find_desk_limits(conn, desk), await own_control(conn, desk)
    is_limited = limits is not None and limits.loss_units is not None
    is_loose = before.state.strictness < ControlState.REDUCING.strictness
    if not is_limited or not is_loose or now - since < BLIND_MAX:
        return before
    reason = f"what the day has lost is not known since {iso(since)}"
    return await set_control(conn, desk, ControlState.REDUCING, by=ACTOR, reason=reason, now=now)
