"""What every chain in memory does: blocks, forks and faults by script, behind a node's port.

`chain.testing.ScriptedGateway` and `chain.bitcoin.testing.ScriptedBitcoin` derive from it. It is shipped
with them, for the tests of whoever builds on their ports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from chain.errors import BlockGone, NodeTrouble, RangeTooLarge
from chain.model import (
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    Head,
    WatchList,
)

T = TypeVar("T")

GENESIS_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Mined(Generic[T]):
    """A block and what is in it."""

    block: Block
    transactions: tuple[T, ...]


@dataclass(slots=True)
class ScriptedChain(ABC, Generic[T]):
    """A chain of transactions *T* in memory, and the node that serves it.

    Attributes:
        lag: how many of the newest blocks the node pretends not to have.
        faults: troubles to raise, one for each of the next questions.
        lose_broadcasts: how many of the next broadcasts are taken but answered by a time-out.
        refuse_broadcasts: how many of the next broadcasts never arrive and are answered the same.
        quorum: how many providers must have a block; this is one node, so more is never reached.
        range_max: blocks that the node reads in one range.
        begins: when its first block is mined; each that follows, a block's time later.
    """

    chain: str = ""
    lag: int = 0
    faults: deque[NodeTrouble] = field(default_factory=deque)
    lose_broadcasts: int = 0
    refuse_broadcasts: int = 0
    quorum: int = 1
    range_max: int = 10_000
    begins: datetime = GENESIS_TIME
    _branch: list[Mined[T]] = field(default_factory=list)
    _pool: dict[str, T] = field(default_factory=dict)
    _forks: int = 0

    # What a script does to the chain.

    def rollback(self, depth: int) -> list[T]:
        """Take the newest *depth* blocks away; return their transactions (not put back)."""
        if not 0 < depth < len(self._branch):
            raise ValueError(f"{depth} of {len(self._branch)} blocks cannot be taken away")
        gone = self._branch[-depth:]
        del self._branch[-depth:]
        self._forks += 1
        return [item for mined in gone for item in mined.transactions]

    @property
    def blocks(self) -> list[Block]:
        """Return the chain, genesis first."""
        return [mined.block for mined in self._branch]

    @property
    def transactions(self) -> list[tuple[T, ...]]:
        """Return what is in each block of the chain, genesis first."""
        return [mined.transactions for mined in self._branch]

    @property
    def pool(self) -> frozenset[str]:
        """Return the hashes of what waits to be mined."""
        return frozenset(self._pool)

    # The port.

    async def head(self) -> Block:
        """Return the newest block that the node admits to."""
        self._stumble()
        return self._visible()[-1].block

    async def block_at(self, height: int) -> Block | None:
        """Return the block at *height*."""
        self._stumble()
        visible = self._visible()
        return visible[height].block if 0 <= height < len(visible) else None

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what the block holds for *watch*."""
        self._stumble()
        return self._contents(block, watch)

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks from *first* to *last* hold."""
        self._stumble()
        if last.height - first.height >= self.range_max:
            raise RangeTooLarge(f"at most {self.range_max} blocks at once")
        self._find(first)
        self._find(last)
        blocks = [mined.block for mined in self._branch[first.height : last.height + 1]]
        return [self._contents(block, watch) for block in blocks]

    async def heads(self) -> tuple[Head, ...]:
        """Return the newest block, or the fault that is due."""
        try:
            return (Head(self.chain, await self.head()),)
        except NodeTrouble as trouble:
            return (Head(self.chain, None, trouble.what),)

    async def has_block(self, block: Block) -> int:
        """Return 1 when the block is visible at its height, else 0."""
        found = await self.block_at(block.height)
        return int(found is not None and found.hash == block.hash)

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Take several into the pool, in order."""
        return [await self.broadcast(raw, tx_hash) for raw, tx_hash in items]

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Take signed bytes into the pool."""
        if self.refuse_broadcasts:
            self.refuse_broadcasts -= 1
            return BroadcastReport(BroadcastOutcome.UNKNOWN, "time-out")
        report = self._admit(raw, tx_hash)
        if self.lose_broadcasts:
            self.lose_broadcasts -= 1
            return BroadcastReport(BroadcastOutcome.UNKNOWN, "time-out")
        return report

    # How it decides.

    @abstractmethod
    def _contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what a block holds for *watch*."""

    @abstractmethod
    def _admit(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Take signed bytes into the pool, or say why not."""

    def _stumble(self) -> None:
        if self.faults:
            raise self.faults.popleft()

    def _visible(self) -> list[Mined[T]]:
        return self._branch[: max(1, len(self._branch) - self.lag)]

    def _find(self, block: Block) -> Mined[T]:
        visible = self._visible()
        if block.height >= len(visible) or visible[block.height].block.hash != block.hash:
            raise BlockGone(f"block {block.hash} is not on the chain")
        return visible[block.height]
