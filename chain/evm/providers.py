"""The port of an EVM chain, spoken to several providers of which one may lag, fail or lie.

What is believed of any chain, `chain.provider_set` says. Of this kind besides:

- *Balances* are what `quorum` providers say, because books are corrected by them.
- *A count of mined transactions* is the highest that `quorum` providers reach. A lagging one cannot
  make us use a nonce again (and the nonce rows would not), a lying one cannot make a nonce seem spent.
- *Fees* are the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.errors import NodeUnavailable
from chain.evm.fee_oracle import FeePolicy, middle_quote
from chain.evm.gateway import BALANCE_BATCHES_MAX, EvmGateway
from chain.jsonrpc import ATTEMPTS_MAX, BATCH_MAX, TIMEOUT_S, Rpc
from chain.model import Block, CallResult, FeeQuote, Unreadable
from chain.provider_set import ReaderSet
from chain.rate_limit import RateLimit
from kernel.errors import BadInput


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
    if len({provider.url.rstrip("/") for provider in providers}) < len(providers):
        raise BadInput("one provider is named twice: it would be a quorum with itself")
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
                balance_batches=balance_batches(provider.limit),
            )
            for provider in providers
        ],
        quorum=quorum,
    )


def balance_batches(limit: RateLimit | None) -> int:
    """Return how many batches about balances may be open at once: what *limit* takes in a second.

    More of them would only wait here for their turn, and might wait for too long.
    """
    if limit is None:
        return BALANCE_BATCHES_MAX
    return max(1, min(BALANCE_BATCHES_MAX, limit.per_second // BATCH_MAX))


class ProviderSet(ReaderSet[EvmGateway]):
    """Several providers of one EVM chain: an implementation of `chain.ports.ChainGateway`."""

    # ------------------------------------------------------------------ what a quorum says

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

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        """Return what *address* holds after exactly the block *at*, as a quorum tells it."""
        return await self._agreed(
            lambda gateway: gateway.balance(address, contract, at=at), f"of {address}"
        )

    async def balances(
        self, wanted: Sequence[tuple[str, str | None]], *, at: Block
    ) -> list[int | Unreadable]:
        """Return the balances of many (address, contract), as a quorum tells them.

        That a token does not tell one is believed as a balance is: when a quorum says so.
        """
        return await self._agreed(
            lambda gateway: gateway.balances(wanted, at=at), f"of {len(wanted)} balances"
        )

    # ------------------------------------------------------------------ what one provider says

    async def storage_at(self, address: str, slot: int) -> bytes:
        """Return the 32 bytes of a contract's storage slot at the head."""
        return await self._first(lambda gateway: gateway.storage_at(address, slot))

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
