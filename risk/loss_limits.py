"""What a day's loss calls for. Pure."""

from __future__ import annotations

from typing import Final

from risk.model import ControlState, DeskLimits

HALT_AT: Final = 2
"""Times the loss limit at which everything stops: taking risk off did not help."""


def judge_loss(limits: DeskLimits | None, day_pnl_units: int) -> ControlState:
    """Return the loosest switch that the day's result allows: a loss that reaches a limit is on it."""
    if limits is None or limits.loss_units is None:
        return ControlState.ACTIVE
    loss = -day_pnl_units
    if loss >= HALT_AT * limits.loss_units:
        return ControlState.HALTED
    return ControlState.REDUCING if loss >= limits.loss_units else ControlState.ACTIVE
