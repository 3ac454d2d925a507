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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from chain.answers import Answers, blocks_of, itself, merge_reports, untraced, worst
from chain.errors import (
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    RangeTooLarge,
    TokenUnreadable,
    WrongChain,
)
from chain.health import (
    Health,
    Standing,
    answered,
    awake,
    failed,
    order,
    proven,
    refused,
    serves_another_chain,
    stands_at,
)
from chain.jsonrpc import RateLimited, RpcRefusal
from chain.model import (
    Block,
    BlockContents,
    BroadcastReport,
    Head,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)
from chain.ports import ChainReader
from chain.runs import holds_something
from kernel.errors import BadInput

PROVIDERS_MAX: Final = 16
HEAD_STEPS: Final = (0, 1, 2, 4, 8, 16, 32, 64)
"""How far below the best common height a common block is looked for."""
TOLD_MAX: Final = 10_000
"""Blocks of which is remembered who told that they hold nothing."""
REST_PER_WASTE: Final = 2


class OneProvider(ChainReader, Protocol):
    """A reader of a chain that is one of several."""

    @property
    def chain(self) -> str:
        """The chain's code in the registry."""
        ...

    @property
    def network_id(self) -> int:
        """What it must serve."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    async def prove(self) -> None:
        """Assert that it serves our chain.

        Raises:
            WrongChain: it serves another one.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


T = TypeVar("T")
G = TypeVar("G", bound=OneProvider)
Question = Callable[[G], Awaitable[T]]


class ReaderSet(Generic[G]):
    """Several providers of one chain: an implementation of `chain.ports.ChainReader`.

    Use it as an asynchronous context manager: entering asserts what they serve, leaving closes the
    connections.
    """

    def __init__(
        self,
        gateways: Sequence[G],
        *,
        quorum: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Speak to *gateways*, of which *quorum* must agree; *clock_s* gives monotonic seconds."""
        if not 0 < len(gateways) <= PROVIDERS_MAX:
            raise BadInput(f"a chain has 1 to {PROVIDERS_MAX} providers, not {len(gateways)}")
        if not 0 < quorum <= len(gateways):
            raise BadInput(f"{quorum} of {len(gateways)} providers cannot agree")
        if len({(one.chain, one.network_id) for one in gateways}) > 1:
            raise BadInput("providers of one set serve one chain")
        self.chain = gateways[0].chain
        self.network_id = gateways[0].network_id
        self._quorum = quorum
        self._gateways = tuple(gateways)
        self._healths = [Health(name) for name in _distinct(one.name for one in gateways)]
        self._clock_s = clock_s
        self._on_branch: frozenset[int] = frozenset()
        self._told: OrderedDict[str, frozenset[int]] = OrderedDict()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Assert that every provider that answers serves our chain, and that a quorum answers.

        Raises:
            WrongChain: one serves another chain. At the start somebody is there to correct it.
            NodeUnavailable: fewer than a quorum answer.
        """
        for gateway in self._gateways:
            self._stack.push_async_callback(gateway.close)
        try:
            answers = await self._ask_all(_nothing)
            self._require_our_chain()
            self._require_quorum(answers, "say which chain they serve")
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._stack.aclose()

    @property
    def quorum(self) -> int:
        """How many providers must agree."""
        return self._quorum

    @property
    def traces(self) -> bool:
        """Whether a quorum of providers shows native value that contracts pass on."""
        return sum(gateway.traces for gateway in self._gateways) >= self._quorum

    @property
    def healths(self) -> tuple[Health, ...]:
        """How each provider has done."""
        return tuple(self._healths)

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

    # ------------------------------------------------------------------ asking

    async def _ask(self, place: int, question: Question[G, T]) -> T:
        """Put a question to one provider and learn from how it does."""
        gateway, began_s = self._gateways[place], self._clock_s()
        try:
            if self._healths[place].standing is Standing.UNPROVEN:
                await gateway.prove()
                self._healths[place] = proven(self._healths[place])
            answer = await question(gateway)
        except WrongChain as wrong:
            self._healths[place] = serves_another_chain(self._healths[place], wrong.what)
            raise NodeUnavailable(wrong.what) from wrong
        except (BlockGone, RangeTooLarge, TokenUnreadable):
            raise  # an honest answer: of a node that is elsewhere, of a contract that is odd
        except RpcRefusal as refusal:
            self._healths[place] = refused(self._healths[place], refusal.what)
            raise
        except NodeTrouble as trouble:
            now_s = self._clock_s()
            asked_s = trouble.retry_after_s if isinstance(trouble, RateLimited) else 0.0
            # Whoever wasted our time rests for longer than that, or we would mostly wait for it.
            rest_s = max(asked_s, REST_PER_WASTE * (now_s - began_s))
            self._healths[place] = failed(self._healths[place], trouble.what, now_s, rest_s=rest_s)
            raise
        took_ms = round((self._clock_s() - began_s) * 1_000)
        self._healths[place] = answered(self._healths[place], took_ms)
        return answer

    async def _ask_until_alike(
        self, question: Question[G, T], places: Sequence[int], key: Callable[[T], object]
    ) -> Answers[T]:
        """Ask providers in this order, and no more of them than are needed for a quorum alike."""
        answers: Answers[T] = Answers([], [])
        waiting = list(places)
        while waiting:
            lacking = self._quorum - len(answers.alike(key, 1))
            if lacking <= 0:
                break
            asked, waiting = waiting[:lacking], waiting[lacking:]
            for place, answer in zip(asked, await self._ask_each(asked, question), strict=True):
                if isinstance(answer, NodeTrouble):
                    answers.troubles.append(answer)
                else:
                    answers.told.append((place, answer))
        return answers

    async def _ask_each(
        self, places: Sequence[int], question: Question[G, T]
    ) -> list[T | NodeTrouble]:
        async def ask(place: int) -> T | NodeTrouble:
            try:
                return await self._ask(place, question)
            except NodeTrouble as trouble:
                return trouble

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(place)) for place in places]
        return [task.result() for task in tasks]

    async def _agreed(self, question: Question[G, T], what: str) -> T:
        """Return what a quorum answers alike."""
        answers = await self._ask_until_alike(question, self._order(), itself)
        alike = answers.alike(itself, self._quorum)
        if not alike:
            raise self._disagreement(answers, what)
        return alike[0][1]

    def _disagreement(self, answers: Answers[T], what: str) -> NodeTrouble:
        """Return why no quorum is alike: too few answered, or they differ."""
        if len(answers.told) < self._quorum and answers.troubles:
            return worst(answers.troubles, self.chain)
        return IncompleteAnswer(
            f"of {len(answers.told)} providers no {self._quorum} tell the same {what}"
        )

    async def _first(self, question: Question[G, T]) -> T:
        """Return the first usable answer, the healthiest provider asked first."""
        troubles: list[NodeTrouble] = []
        for place in self._order():
            try:
                return await self._ask(place, question)
            except NodeTrouble as trouble:
                troubles.append(trouble)
        raise worst(troubles, self.chain)

    async def _first_found(self, question: Question[G, T | None]) -> T | None:
        """Return the first answer that is not None; None when somebody answers, and all so."""
        troubles: list[NodeTrouble] = []
        places = self._order()
        for place in places:
            try:
                found = await self._ask(place, question)
            except NodeTrouble as trouble:
                troubles.append(trouble)
            else:
                if found is not None:
                    return found
        if len(troubles) == len(places):
            raise worst(troubles, self.chain)
        return None

    async def _ask_all(self, question: Question[G, T]) -> dict[int, T]:
        """Return the answers of all who do not rest, by place; troubles are noted, not raised."""
        answers: dict[int, T] = {}

        async def ask(place: int) -> None:
            try:
                answers[place] = await self._ask(place, question)
            except NodeTrouble:
                return

        async with asyncio.TaskGroup() as group:
            for place in awake(self._healths, self._clock_s(), self._quorum):
                group.create_task(ask(place))
        return dict(sorted(answers.items()))

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
        self._on_branch = frozenset(groups[agreed[0]])
        return agreed[0]

    # ------------------------------------------------------------------ whom, and what is enough

    def _order(self) -> tuple[int, ...]:
        places = order(self._healths, self._clock_s(), preferred=self._on_branch)
        if not places:
            raise NodeUnavailable(f"every provider of {self.chain} serves another chain")
        return places

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

    def _require_quorum(self, answers: dict[int, T], what: str) -> None:
        if len(answers) < self._quorum:
            silent = [h.last_trouble for p, h in enumerate(self._healths) if p not in answers]
            raise NodeUnavailable(
                f"{len(answers)} of {len(self._gateways)} providers of {self.chain} {what}, "
                f"{self._quorum} are needed: {'; '.join(silent)}"
            )

    def _require_our_chain(self) -> None:
        for health in self._healths:
            if health.standing is Standing.OUT:
                raise WrongChain(
                    f"provider {health.provider}: {health.last_trouble}",
                    remedy="Correct the provider's address or the registry's chain",
                )


async def _nothing(gateway: OneProvider) -> None:
    """Ask nothing more than what a provider must prove before any question."""


def _distinct(names: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return result
