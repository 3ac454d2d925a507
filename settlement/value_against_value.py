"""Value only against value: on what ground a payment of ours may leave, or what it waits for. Pure.

Our leg is held first. It is released only when what the party owes in the same run is final, when the
party settles by book from funds it holds here, or when a settlement limit bears what would be open.
Each release keeps the name of its ground.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from settlement.model import Direction, Instruction, InstructionState
from trading.terms.model import Rail


class Cover(StrEnum):
    """Why value may leave."""

    NOTHING_OWED = "nothing-owed"
    """The party owes nothing in the run."""
    RECEIVED = "received"
    """All that it owes in the run is final."""
    PREFUNDED = "prefunded"
    """Its own side is posted in the same commit."""
    LIMIT = "limit"
    """A settlement limit bears what it still owes."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """What was found about a payment.

    Attributes:
        cover: None: it waits, unless a limit bears *owing*.
        owing: what the party has not paid in the run.
        detail: what a person should know of it: the limit that bears it, or why it waits.
    """

    cover: Cover | None
    owing: tuple[Instruction, ...] = ()
    detail: str = ""


OPEN: Final = frozenset({InstructionState.PLANNED, InstructionState.RESCHEDULED})
"""States of a payment for which nothing is held yet."""

PAYABLE: Final = frozenset({*OPEN, InstructionState.FUNDED})
"""States in which a payment has no payout yet, or its last one has ended."""


def received_of(items: Iterable[Instruction]) -> dict[tuple[UUID, str], list[Instruction]]:
    """Return what each party pays in each run, of the instructions of any number of runs."""
    found: dict[tuple[UUID, str], list[Instruction]] = {}
    for item in items:
        if item.direction is Direction.RECEIVE:
            found.setdefault((item.run_id, item.party), []).append(item)
    return found


def judge(item: Instruction, run: Iterable[Instruction]) -> Grounds:
    """Return on what ground *item* may leave, by the instructions of its own run.

    What its own party pays in it is enough (`received_of`).
    """
    theirs = [i for i in run if i.party == item.party and i.direction is Direction.RECEIVE]
    owing = tuple(i for i in theirs if i.state is not InstructionState.FINAL)
    if owing:
        return Grounds(None, owing)
    return Grounds(Cover.RECEIVED if theirs else Cover.NOTHING_OWED)


def is_payment(item: Instruction, states: Collection[InstructionState] = PAYABLE) -> bool:
    """Tell whether *item* is a payment with a payout of its own, in one of *states*."""
    return item.direction is Direction.PAY and item.rail is not Rail.BOOK and item.state in states
