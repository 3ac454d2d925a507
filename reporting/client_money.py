"""Rule 6 of the account book, block by block: when clients become short, and covered again. Pure.

It is the ends of blocks that count: a chain that leaves clients short only between its own transfers
is no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reporting.model import ClientMoney, ClientMoneyState


@dataclass(frozen=True, slots=True)
class Followed:
    """What follows from a stretch of the journal.

    Attributes:
        height: the last block that was looked at.
        changes: each block end at which an asset changed its state, in order.
        figures: the last figures of every asset that moved.
    """

    height: int
    changes: tuple[ClientMoney, ...]
    figures: tuple[ClientMoney, ...]


def follow_client_money(
    states: Mapping[str, ClientMoneyState],
    ends: Iterable[ClientMoney],
    *,
    through: int,
    changes_max: int,
) -> Followed:
    """Walk block ends in their order and say where an asset changes its state.

    Args:
        states: of each asset before the first of *ends*; one that is missing is covered.
        ends: figures at the ends of blocks, whole blocks in order.
        through: the last block that *ends* speak for, whether it moved anything or not.
        changes_max: after so many changes it stops at the end of their block, before *through*.
    """
    now = dict(states)
    figures: dict[str, ClientMoney] = {}
    changes: list[ClientMoney] = []
    height = 0
    for end in ends:
        if end.height > height and len(changes) >= changes_max:
            return Followed(height, tuple(changes), tuple(figures.values()))
        height = end.height
        if end.state is not now.get(end.asset, ClientMoneyState.COVERED):
            changes.append(end)
        now[end.asset] = end.state
        figures[end.asset] = end
    return Followed(through, tuple(changes), tuple(figures.values()))
