"""What the steps of the worker have in common: their bench, their answers, the fence.

A step takes many payouts: it looks outside once, then writes in one transaction. Where one of them
spoils it for all, each is tried alone (`carry_out`), so that the others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody import payout_rows as rows
from custody.payout_allocation import Waiting
from custody.payout_model import Payout
from custody.payout_rules import BumpPolicy
from custody.ports import PayoutSigner
from custody.rails import Rail
from kernel.clock import Clock
from kernel.errors import CausewayError, OutcomeUnknown, OutsideUnavailable, StaleFence

LOST: Final = "taken over by another worker"


@dataclass(frozen=True, slots=True)
class Bench:
    """What the worker works with."""

    engine: AsyncEngine
    rail: Rail
    signer: PayoutSigner
    clock: Clock
    bump: BumpPolicy = field(default_factory=BumpPolicy)


@dataclass(frozen=True, slots=True)
class Sent:
    """The bytes were handed over; *detail* says what is not known, "" when they were taken."""

    look_again: timedelta
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Another worker has the payout and does with it what this one would have done."""


Result = Payout | Waiting | Sent | Lost
"""What a step made of a payout: the payout as it now is, or why it goes no further."""

Results = Mapping[UUID, Result]
Step = Callable[[Bench, Sequence[Payout]], Awaitable[Results]]


async def carry_out(step: Step, bench: Bench, payouts: Sequence[Payout]) -> dict[UUID, Result]:
    """Take *payouts* through *step* together or, where that fails, one by one.

    When the outside does not answer, or nobody knows whether the database has committed, all of
    them wait: asking for each of them alone would fail as often as there are payouts.
    """
    if not payouts:
        return {}
    try:
        return dict(await step(bench, payouts))
    except (OutsideUnavailable, OutcomeUnknown) as error:
        return {item.id: Waiting(error.render()) for item in payouts}
    except StaleFence:
        if len(payouts) == 1:
            return {payouts[0].id: Lost()}
    except CausewayError as error:
        if len(payouts) == 1:
            return {payouts[0].id: Waiting(error.render())}
    except DBAPIError as error:
        if len(payouts) == 1:
            return {payouts[0].id: Waiting(f"the database refused: {error.orig}")}
    alone: dict[UUID, Result] = {}
    for payout in payouts:
        alone |= await carry_out(step, bench, [payout])
    return alone


async def lock_mine(
    conn: AsyncConnection, payouts: Collection[Payout]
) -> tuple[dict[UUID, Payout], dict[UUID, Result]]:
    """Lock the rows; return the payouts as they now are, and those that this worker has lost."""
    found = await rows.lock_many(conn, [item.id for item in payouts])
    fences = {item.id: item.fence for item in payouts}
    mine = {key: item for key, item in found.items() if item.fence == fences[key]}
    return mine, {key: Lost() for key in fences if key not in mine}
