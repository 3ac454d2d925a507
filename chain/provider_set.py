"""A chain read through several providers, of which one may lag, fail or lie; whatever the kind of chain.

What is believed, and why:

- *The head* is the highest block that `quorum` providers have by hash. One provider with a branch
  of its own can then neither lead the follower astray nor stop it.
- *Other reads* go to the healthiest provider among those that have the agreed head; trouble, "gone" and
  "incomplete" are taken to the next before they are believed.
- *Which block stands at a height* is what `quorum` providers say: blocks are taken back, and chains
  halted, on that word.
- *What a block holds for us* is believed when `quorum` providers tell the same, because a credit
  follows from it, and a hash proves nothing about amounts. That it holds nothing as well: below
  finality a block is read once, and at a second reading silence would take a booking back. Of blocks
  that hold nothing the second reading is put to those who were not asked the first time.
- *The final height* is the highest that `quorum` providers reach: a lying one cannot make a block
  final.
- *Signed bytes* go to everybody. ACCEPTED by one is accepted; REJECTED needs `quorum` providers
  with evidence and none that accepts; all else is unknown.

Which chain it serves is asserted at the start, before the first question to a provider that did not answer
then, and per provider at every broadcast. Who serves another chain is not asked again until the
process starts anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from chain.answers import blocks_of, itself, merge_reports, untraced
from chain.errors import (
    IncompleteAnswer,
    NodeTrouble,
    WrongChain,
)
from chain.health import (
    Standing,
    stands_at,
)
from chain.model import (
    Block,
    BlockContents,
    BroadcastReport,
    Head,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)
from chain.provider_group import G, ProviderGroup
from chain.runs import holds_something

HEAD_STEPS: Final = (0, 1, 2, 4, 8, 16, 32, 64)
"""How far below the best common height a common block is looked for."""
TOLD_MAX: Final = 10_000
"""Blocks of which is remembered who told that they hold nothing."""


class ReaderSet(ProviderGroup[G]):
    """Several providers of one chain: an implementation of `chain.ports.ChainReader`."""

    def __init__(
        self,
        gateways: Sequence[G],
        *,
        quorum: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Speak to *gateways*, of which *quorum* must agree; *clock_s* gives monotonic seconds."""
        super().__init__(gateways, quorum=quorum, clock_s=clock_s)
        self._told: OrderedDict[str, frozenset[int]] = OrderedDict()

    # ------------------------------------------------------------------ what a quorum says

    async def chain_id(self) -> int:
        """Return the network id, which a quorum of providers serves now."""
        answers = await self._ask_all(lambda gateway: gateway.chain_id())
        self._require_quorum(answers, "say which chain they serve")
        return self.network_id

    async def head(self) -> Block:
        """Return the highest block that a quorum of providers has by hash.

        Raises:
            NodeUnavailable: fewer than a quorum answer.
            IncompleteAnswer: they have nothing in common within reach.
        """
        heads = await self._ask_heads()
        self._require_quorum(heads, "say where the head is")
        reached = sorted((block.height for block in heads.values()), reverse=True)
        for step in HEAD_STEPS:
            height = reached[self._quorum - 1] - step
            if height < 0:
                break
            agreed = await self._agreed_at(height, heads)
            if agreed is not None:
                return agreed
        raise IncompleteAnswer(f"the providers of {self.chain} do not agree on any recent block")

    async def heads(self) -> tuple[Head, ...]:
        """Return what each provider says is its newest block, or why it says nothing."""
        found = await self._ask_heads()
        return tuple(
            Head(health.provider, found.get(place), "" if place in found else health.last_trouble)
            for place, health in enumerate(self._healths)
        )

    async def has_block(self, block: Block) -> int:
        """Return how many providers have exactly this hash at the block's height now."""
        found = await self._ask_all(lambda gateway: gateway.block_at(block.height))
        return sum(one is not None and one.hash == block.hash for one in found.values())

    async def finalized_height(self) -> int:
        """Return the highest final height that a quorum of providers reaches."""
        answers = await self._ask_all(lambda gateway: gateway.finalized_height())
        return self._reached(answers, "say what is final")

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block holds for *watch*, as a quorum of providers tells it.

        Raises:
            BlockGone: no provider has the block.
            IncompleteAnswer: no quorum tells the same.
        """

        async def question(gateway: G) -> BlockContents:
            return self._comparable(await gateway.contents(block, watch))

        answers = await self._ask_until_alike(question, self._order_for(block), itself)
        # Where one was too slow to trace the block, what all can tell is left, and listed so.
        alike = answers.alike(itself, self._quorum) or [
            (place, untraced(found)) for place, found in answers.alike(untraced, self._quorum)
        ]
        if not alike:
            raise self._disagreement(answers, f"of block {block.hash}")
        found = alike[0][1]
        if not holds_something(found):
            self._remember(block, frozenset(place for place, _ in alike))
        return found

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks hold, of which a quorum tells the same."""

        async def question(gateway: G) -> list[BlockContents]:
            return await gateway.contents_of_range(first, last, watch)

        answers = await self._ask_until_alike(question, self._order(), blocks_of)
        alike = answers.alike(blocks_of, self._quorum)
        if not alike:
            raise self._disagreement(answers, f"of blocks {first.height} to {last.height}")
        if self._quorum == 1:
            return alike[0][1]
        return [
            await self.contents(told[0].block, watch)
            if any(holds_something(one) for one in told)
            else replace(told[0], traced=all(one.traced for one in told))
            for told in zip(*(run for _, run in alike), strict=True)
        ]

    async def block_at(self, height: int) -> Block | None:
        """Return the block that a quorum has at *height*; None when there is no such block."""
        answers = await self._ask_until_alike(
            lambda gateway: gateway.block_at(height), self._order(), itself
        )
        alike = answers.alike(itself, self._quorum)
        if not alike and len(answers.told) < self._quorum:
            raise self._disagreement(answers, f"of height {height}")
        return alike[0][1] if alike else None

    # ------------------------------------------------------------------ what one provider says

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when no provider has it in a block."""
        return await self._first_found(lambda gateway: gateway.find_transaction(tx_hash))

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits in one provider's pool for watched addresses."""
        return await self._first(lambda gateway: gateway.pending(watch))

    # ------------------------------------------------------------------ sending

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Send the bytes to every provider, to each once, and say what is known afterwards."""
        (report,) = await self.broadcast_many([(raw, tx_hash)])
        return report

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Send several to every provider, to each once and in order.

        Raises:
            WrongChain: every provider serves another chain; nothing was sent.
        """
        answers = await self._ask_all(lambda gateway: gateway.broadcast_many(items))
        if all(health.standing is Standing.OUT for health in self._healths):
            raise WrongChain(
                f"no provider serves {self.chain} any more",
                remedy="Correct the providers' addresses and start again",
            )
        said = [(self._healths[place].provider, reports) for place, reports in answers.items()]
        return [
            merge_reports([(name, reports[n]) for name, reports in said], quorum=self._quorum)
            for n in range(len(items))
        ]

    # ------------------------------------------------------------------ which block, and what it holds

    async def _ask_heads(self) -> dict[int, Block]:
        heads = await self._ask_all(lambda gateway: gateway.head())
        for place, block in heads.items():
            self._healths[place] = stands_at(self._healths[place], block.height)
        return heads

    async def _agreed_at(self, height: int, heads: dict[int, Block]) -> Block | None:
        """Return the one block at *height* that a quorum has, and remember who has it."""
        blocks: dict[int, Block] = {p: b for p, b in heads.items() if b.height == height}
        above = [place for place, block in heads.items() if block.height > height]

        async def ask(place: int) -> None:
            try:
                found = await self._ask(place, lambda gateway: gateway.block_at(height))
            except NodeTrouble:
                return
            if found is not None:
                blocks[place] = found

        async with asyncio.TaskGroup() as group:
            for place in above:
                group.create_task(ask(place))
        groups: dict[Block, set[int]] = {}
        for place, block in blocks.items():
            groups.setdefault(block, set()).add(place)
        agreed = [block for block, places in groups.items() if len(places) >= self._quorum]
        if len(agreed) != 1:
            return None
        self._preferred = frozenset(groups[agreed[0]])
        return agreed[0]

    def _order_for(self, block: Block) -> Sequence[int]:
        """Return whom to ask about a block: last those who have told that it holds nothing."""
        told = self._told.get(block.hash, frozenset())
        traces = self.traces
        return sorted(
            self._order(),
            key=lambda place: (traces and not self._gateways[place].traces, place in told),
        )

    def _remember(self, block: Block, places: frozenset[int]) -> None:
        self._told[block.hash] = places
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)

    def _comparable(self, found: BlockContents) -> BlockContents:
        """Leave out what only traces show, unless a quorum of providers traces."""
        return found if self.traces or not found.traced else untraced(found)

    def _reached(self, answers: dict[int, int], what: str) -> int:
        self._require_quorum(answers, what)
        return sorted(answers.values(), reverse=True)[self._quorum - 1]
