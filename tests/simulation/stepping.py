"""What steps are made of: a thing that may happen, who asks for it, and whether the house took it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import list_payouts, request_payout
from kernel.errors import CausewayError
from settlement.model import Run, RunState
from settlement.queries import list_runs
from tests.settlement.desk import BOOK
from tests.simulation.world import World

DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that may happen.

    Attributes:
        weight: how often, beside the others.
        do: does it, and says in a few words what came of it.
        then: the turn of a worker that mostly follows at once; "": none.
    """

    name: str
    weight: int
    do: Callable[[World, Random], Awaitable[str]]
    then: str = ""


async def judged(act: Callable[[], Awaitable[object]]) -> str:
    """Return whether the house took it."""
    try:
        await act()
    except CausewayError as no:
        return type(no).__name__
    return DONE


def ask(world: World, request: PayoutRequest) -> Callable[[], Awaitable[object]]:
    """Return what asks for a payout: the same each time."""
    asked = partial(request_payout, request=request, book=BOOK, now=world.now)
    return lambda: world.do(asked)


async def payouts(world: World, *states: PayoutState, chain: str = "") -> list[Payout]:
    """Return the payouts in some states, oldest first; of one chain, if it is given."""
    found = await world.do(partial(list_payouts, book=BOOK, states=states))
    return [item for item in found if chain in {"", item.chain}]


async def runs_of(world: World, *states: RunState) -> list[Run]:
    """Return the runs in some states."""
    return await world.do(partial(list_runs, book=BOOK, states=states))
