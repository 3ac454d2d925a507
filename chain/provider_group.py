"""Several providers of one chain, asked: each, one after the other, or until enough say the same.

Every question teaches how a provider does: who fails rests, who serves another chain is not asked
again until the process starts anew. What of the answers is believed, `chain.provider_set` says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from chain.answers import Answers, itself, worst
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
)
from chain.jsonrpc import RateLimited, RpcRefusal
from chain.ports import ChainReader
from kernel.errors import BadInput

PROVIDERS_MAX: Final = 16
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


class ProviderGroup(Generic[G]):
    """Several providers of one chain, and how each has done.

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
        self._preferred: frozenset[int] = frozenset()
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

    # ------------------------------------------------------------------ whom, and what is enough

    def _order(self) -> tuple[int, ...]:
        places = order(self._healths, self._clock_s(), preferred=self._preferred)
        if not places:
            raise NodeUnavailable(f"every provider of {self.chain} serves another chain")
        return places

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
