"""The port of a chain, spoken to several providers of which one may lag, fail or lie.

What is believed, and why:

- *The head* is the highest block that `quorum` providers have by hash. One provider with a branch
  of its own can then neither lead the follower astray nor stop it.
- *Reads* go to the healthiest provider among those that have the agreed head; trouble, "gone" and
  "incomplete" are taken to the next before they are believed.
- *What a block holds for us* is believed when `quorum` providers tell the same, because a credit
  follows from it, and a hash proves nothing about amounts. That a block holds nothing is believed of
  one provider: nothing follows from it, and the second reading of the block is put to another one.
- *A count of mined transactions* and *the final height* are the highest that `quorum` providers
  reach. A lagging one cannot make us use a nonce again (and the nonce rows would not), a lying one
  cannot make a block final or a nonce seem spent.
- *Fees* are the median.
- *Signed bytes* go to everybody. ACCEPTED by one is accepted; REJECTED needs `quorum` providers
  with evidence and none that accepts; all else is unknown.

The chain id is asserted at the start, before the first question to a provider that did not answer
then, and per provider at every broadcast. Who serves another chain is not asked again until the
process starts anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self, TypeVar

from chain.errors import (
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    RangeTooLarge,
    WrongChain,
)
from chain.evm.fee_oracle import FeePolicy, middle_quote
from chain.evm.gateway import EvmGateway
from chain.evm.health import (
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
from chain.evm.rate_limit import RateLimit
from chain.evm.rpc import ATTEMPTS_MAX, TIMEOUT_S, RateLimited, Rpc, RpcRefusal
from chain.model import (
    Block,
    BlockContents,
    BroadcastOutcome,
    BroadcastReport,
    CallResult,
    FeeQuote,
    Head,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)
from kernel.errors import BadInput

PROVIDERS_MAX: Final = 16
HEAD_STEPS: Final = (0, 1, 2, 4, 8, 16, 32, 64)
"""How far below the best common height a common block is looked for."""
TOLD_MAX: Final = 10_000
"""Blocks of which is remembered who told that they hold nothing."""
REST_PER_WASTE: Final = 2
TRACE: Final = "trace:"

T = TypeVar("T")
Question = Callable[[EvmGateway], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Provider:
    """Where one provider is reached.

    Attributes:
        url: HTTP; may hold a key, so it is never shown.
        name: what people call it; by default the host.
        limit: requests per second that its contract allows.
    """

    url: str
    name: str | None = None
    limit: RateLimit | None = None


def provider_set(
    providers: Sequence[Provider],
    *,
    chain: str,
    network_id: int,
    quorum: int,
    timeout_s: float = TIMEOUT_S,
    fee_policy: FeePolicy | None = None,
    trace: bool = True,
) -> ProviderSet:
    """Return a set over these providers; nothing is opened yet.

    With others to ask, a question is put to one provider once; alone it is asked again.
    """
    attempts = 1 if len(providers) > 1 else ATTEMPTS_MAX
    return ProviderSet(
        [
            EvmGateway(
                provider.url,
                chain=chain,
                network_id=network_id,
                name=provider.name,
                fee_policy=fee_policy,
                trace=trace,
                rpc=Rpc(provider.url, timeout_s=timeout_s, attempts=attempts, limit=provider.limit),
            )
            for provider in providers
        ],
        quorum=quorum,
    )


class ProviderSet:
    """Several providers of one chain: an implementation of `chain.ports.ChainGateway`.

    Use it as an asynchronous context manager: entering asserts the chain ids, leaving closes the
    connections.
    """

    def __init__(
        self,
        gateways: Sequence[EvmGateway],
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
        self._told: OrderedDict[str, int] = OrderedDict()
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

    async def next_nonce(self, address: str) -> int:
        """Return the highest count of mined transactions that a quorum of providers reaches."""
        answers = await self._ask_all(lambda gateway: gateway.next_nonce(address))
        return self._reached(answers, f"count the transactions of {address}")

    async def fees(self) -> FeeQuote:
        """Return the median of what the providers would bid, of two the lower."""
        answers = await self._ask_all(lambda gateway: gateway.fees())
        if not answers:
            raise NodeUnavailable(f"no provider of {self.chain} says what to bid")
        return middle_quote([*answers.values()])

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block holds for *watch*, as a quorum of providers tells it.

        Raises:
            BlockGone: no provider has the block.
            IncompleteAnswer: no quorum tells the same.
        """
        told: list[BlockContents] = []
        troubles: list[NodeTrouble] = []
        for place in self._order_for(block):
            try:
                found = await self._ask(place, lambda gateway: gateway.contents(block, watch))
            except NodeTrouble as trouble:
                troubles.append(trouble)
                continue
            if not (found.movements or found.outcomes or told):
                self._remember(block, place)
                return found
            told.append(self._comparable(found))
            if told.count(told[-1]) >= self._quorum:
                return told[-1]
        if not told:
            raise _worst(troubles, self.chain)
        raise IncompleteAnswer(
            f"of {len(told)} providers no {self._quorum} tell the same of block {block.hash}"
        )

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks hold; what holds something is told by a quorum as well."""
        found = await self._first(lambda gateway: gateway.contents_of_range(first, last, watch))
        return [
            await self.contents(one.block, watch)
            if self._quorum > 1 and (one.movements or one.outcomes)
            else one
            for one in found
        ]

    # ------------------------------------------------------------------ what one provider says

    async def block_at(self, height: int) -> Block | None:
        """Return the block at *height* of the healthiest provider that has one."""
        return await self._first_found(lambda gateway: gateway.block_at(height))

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when no provider has it in a block."""
        return await self._first_found(lambda gateway: gateway.find_transaction(tx_hash))

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        """Return what *address* holds after exactly the block *at*."""
        return await self._first(lambda gateway: gateway.balance(address, contract, at=at))

    async def balances(self, wanted: Sequence[tuple[str, str | None]], *, at: Block) -> list[int]:
        """Return the balances of many (address, contract), all from one provider."""
        return await self._first(lambda gateway: gateway.balances(wanted, at=at))

    async def storage_at(self, address: str, slot: int) -> bytes:
        """Return the 32 bytes of a contract's storage slot at the head."""
        return await self._first(lambda gateway: gateway.storage_at(address, slot))

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits in one provider's pool for watched addresses."""
        return await self._first(lambda gateway: gateway.pending(watch))

    async def code_at(self, address: str) -> bytes:
        """Return the code at *address* at the head."""
        return await self._first(lambda gateway: gateway.code_at(address))

    async def estimate_gas(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> int:
        """Return the gas that the call would use at the head."""
        return await self._first(
            lambda gateway: gateway.estimate_gas(
                sender=sender, recipient=recipient, value=value, data=data
            )
        )

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        """Return what the call would do at the head."""
        return await self._first(
            lambda gateway: gateway.simulate(
                sender=sender, recipient=recipient, value=value, data=data
            )
        )

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

    async def _ask(self, place: int, question: Question[T]) -> T:
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
        except (BlockGone, RangeTooLarge):
            raise  # an honest answer of a node that is elsewhere
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

    async def _first(self, question: Question[T]) -> T:
        """Return the first usable answer, the healthiest provider asked first."""
        troubles: list[NodeTrouble] = []
        for place in self._order():
            try:
                return await self._ask(place, question)
            except NodeTrouble as trouble:
                troubles.append(trouble)
        raise _worst(troubles, self.chain)

    async def _first_found(self, question: Question[T | None]) -> T | None:
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
            raise _worst(troubles, self.chain)
        return None

    async def _ask_all(self, question: Question[T]) -> dict[int, T]:
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
        """Return whom to ask about a block: last the one that has told that it holds nothing."""
        told = self._told.get(block.hash)
        traces = self.traces
        return sorted(
            self._order(),
            key=lambda place: (traces and not self._gateways[place].traces, place == told),
        )

    def _remember(self, block: Block, place: int) -> None:
        self._told[block.hash] = place
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)

    def _comparable(self, found: BlockContents) -> BlockContents:
        """Leave out what only traces show, unless a quorum of providers traces."""
        if self.traces or not found.traced:
            return found
        kept = tuple(move for move in found.movements if not move.position.startswith(TRACE))
        return replace(found, movements=kept, traced=False)

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


def merge_reports(
    reports: Sequence[tuple[str, BroadcastReport]], *, quorum: int
) -> BroadcastReport:
    """Return what is known after several providers, named, were given the same bytes.

    ACCEPTED by one is accepted, whatever others say: the bytes are out. REJECTED needs the evidence
    of *quorum* providers and the consent of the rest that answered with evidence. All else is
    unknown: a provider that timed out may have them.
    """
    for name, report in reports:
        if report.outcome is BroadcastOutcome.ACCEPTED:
            detail = f"{name}: {report.detail}" if report.detail else name
            return BroadcastReport(BroadcastOutcome.ACCEPTED, detail)
    detail = "; ".join(f"{name}: {report.detail}" for name, report in reports)
    rejected = sum(report.outcome is BroadcastOutcome.REJECTED for _, report in reports)
    if rejected >= quorum:
        return BroadcastReport(BroadcastOutcome.REJECTED, detail)
    return BroadcastReport(BroadcastOutcome.UNKNOWN, detail or "no provider was reached")


async def _nothing(gateway: EvmGateway) -> None:
    """Ask nothing more than what a provider must prove before any question."""


def _worst(troubles: Sequence[NodeTrouble], chain: str) -> NodeTrouble:
    """Return the trouble that tells the caller most: what it can act on comes first."""
    for kind in (RangeTooLarge, IncompleteAnswer, BlockGone):
        for trouble in troubles:
            if isinstance(trouble, kind):
                return trouble
    return troubles[-1] if troubles else NodeUnavailable(f"no provider of {chain} answers")


def _distinct(names: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return result
