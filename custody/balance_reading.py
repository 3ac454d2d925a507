"""Asking a node about many balances at one block: in bulk where it can, else a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from chain.model import Block
from chain.ports import ChainGateway

AT_ONCE: Final = 16
"""Questions open at a node that is asked one by one."""
CHUNK: Final = 1_000
"""Balances read before progress is told."""

Wanted = tuple[str, str | None]
"""(address, contract); contract None is the native coin."""
Progress = Callable[[int, int], None]
"""Told how many balances were read, of how many."""


@runtime_checkable
class BulkBalances(Protocol):
    """A gateway that answers many balances in few round trips."""

    async def balances(self, wanted: Sequence[Wanted], *, at: Block) -> list[int]:
        """Return the balances in the order of *wanted*; as `ChainGateway.balance` each."""
        ...


async def read_balances(
    gateway: ChainGateway, wanted: Sequence[Wanted], *, at: Block, progress: Progress | None = None
) -> dict[Wanted, int]:
    """Return what each address holds after exactly the block *at*, in the chain's units.

    Raises:
        BlockGone: the node no longer has the block, or its state.
        NodeTrouble: it cannot be relied on now.
    """
    found: dict[Wanted, int] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        if isinstance(gateway, BulkBalances):
            amounts = await gateway.balances(chunk, at=at)
        else:
            amounts = await _one_by_one(gateway, chunk, at)
        found.update(zip(chunk, amounts, strict=True))
        if progress is not None:
            progress(len(found), len(wanted))
    return found


async def _one_by_one(gateway: ChainGateway, wanted: Sequence[Wanted], at: Block) -> list[int]:
    amounts = [0] * len(wanted)
    turns = iter(enumerate(wanted))

    async def ask() -> None:
        for index, (address, contract) in turns:
            amounts[index] = await gateway.balance(address, contract, at=at)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(wanted))):
                group.create_task(ask())
    except ExceptionGroup as trouble:
        # Whoever asked meant one question; the first thing that went wrong is the answer.
        raise trouble.exceptions[0] from None
    return amounts
