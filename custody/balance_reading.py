"""Asking a node about many balances at one block: in bulk where it can, else a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from chain.errors import TokenUnreadable
from chain.model import Block, Unreadable
from chain.ports import ChainGateway
from kernel.errors import ungrouped

AT_ONCE: Final = 16
"""Questions open at a node that is asked one by one."""
CHUNK: Final = 5_000
"""Balances read before progress is told: enough for several batches that are open at once."""

Wanted = tuple[str, str | None]
"""(address, contract); contract None is the native coin."""
Progress = Callable[[int, int], None]
"""Told how many balances were read, of how many."""


@runtime_checkable
class BulkBalances(Protocol):
    """A gateway that answers many balances in few round trips."""

    async def balances(self, wanted: Sequence[Wanted], *, at: Block) -> list[int | Unreadable]:
        """Return the balances in the order of *wanted*; `Unreadable` where a token tells none."""
        ...


async def read_balances(
    gateway: ChainGateway, wanted: Sequence[Wanted], *, at: Block
) -> dict[Wanted, int | Unreadable]:
    """Return what each address holds after exactly the block *at*, in the chain's units.

    A token that does not tell a balance has `Unreadable` in its place.

    Raises:
        BlockGone: the node no longer has the block, or its state.
        NodeTrouble: it cannot be relied on now.
    """
    found: dict[Wanted, int | Unreadable] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        if isinstance(gateway, BulkBalances):
            amounts = await gateway.balances(chunk, at=at)
        else:
            amounts = await _one_by_one(gateway, chunk, at)
        found.update(zip(chunk, amounts, strict=True))
    return found


async def _one_by_one(
    gateway: ChainGateway, wanted: Sequence[Wanted], at: Block
) -> list[int | Unreadable]:
    amounts: list[int | Unreadable] = [0] * len(wanted)
    turns = iter(enumerate(wanted))

    async def ask() -> None:
        for index, (address, contract) in turns:
            try:
                amounts[index] = await gateway.balance(address, contract, at=at)
            except TokenUnreadable as trouble:
                amounts[index] = Unreadable(trouble.what)

    # Whoever asked meant one question; the first thing that went wrong is the answer.
    with ungrouped():
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(wanted))):
                group.create_task(ask())
    return amounts
