"""The port of a Bitcoin chain, spoken to several nodes of which one may lag, fail or lie.

What is believed of any chain, `chain.provider_set` says. Of this kind besides:

- *That an output is unspent* and *what a scan finds* are what `quorum` nodes say: books are held
  against it. Scans are alike only when they are of the same block.
- *Fee rates* are the median, of two the lower; an estimate counts more than a fallback. *The relay
  rate* and *the step of a replacement* are the lowest that satisfy `quorum` nodes: a lying one
  cannot make us pay more.
- *Who spends an output in the pool* is what the first says who sees anybody do so. *Whether a
  transaction would be taken* is what the healthiest node says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.bitcoin.gateway import FALLBACK_RATE, BitcoinGateway
from chain.bitcoin.heads import BlockFeed
from chain.bitcoin.model import FeeRate, PoolVerdict, RateSource, UnspentScan
from chain.bitcoin.networks import Network
from chain.bitcoin.node import NodeRpc
from chain.bitcoin.transactions import Outpoint
from chain.errors import NodeUnavailable
from chain.jsonrpc import ATTEMPTS_MAX, TIMEOUT_S
from chain.provider_set import ReaderSet
from chain.rate_limit import RateLimit
from kernel.errors import BadInput
from kernel.settings import Secret


@dataclass(frozen=True, slots=True)
class BitcoinNode:
    """Where one node is reached.

    Attributes:
        url: HTTP, without user and password.
        name: what people call it; by default the host.
        cookie: the file that lets us in, or else *user* and *password*.
        limit: requests per second.
    """

    url: str
    name: str | None = None
    cookie: Path | None = None
    user: str = ""
    password: Secret | None = None
    limit: RateLimit | None = None


def node_set(
    nodes: Sequence[BitcoinNode],
    *,
    chain: str,
    network: Network,
    quorum: int,
    timeout_s: float = TIMEOUT_S,
    fallback_rate: int = FALLBACK_RATE,
) -> NodeSet:
    """Return a set over these nodes; nothing is opened yet.

    With others to ask, a question is put to one node once; alone it is asked again.

    Raises:
        BadInput: one node is named twice, or has no way in, or two.
    """
    if len({node.url.rstrip("/") for node in nodes}) < len(nodes):
        raise BadInput("one node is named twice: it would be a quorum with itself")
    attempts = 1 if len(nodes) > 1 else ATTEMPTS_MAX
    return NodeSet(
        [
            BitcoinGateway(
                node.url,
                chain=chain,
                network=network,
                name=node.name,
                fallback_rate=fallback_rate,
                rpc=NodeRpc(
                    node.url,
                    cookie=node.cookie,
                    user=node.user,
                    password="" if node.password is None else node.password.reveal(),
                    timeout_s=timeout_s,
                    attempts=attempts,
                    limit=node.limit,
                ),
            )
            for node in nodes
        ],
        quorum=quorum,
    )


class NodeSet(ReaderSet[BitcoinGateway]):
    """Several nodes of one Bitcoin chain: an implementation of `chain.bitcoin.ports.BitcoinReader`."""

    @property
    def network(self) -> Network:
        """The network that all nodes serve."""
        return self._gateways[0].network

    def feed(self) -> BlockFeed:
        """Return what listens to all nodes for new blocks."""
        return BlockFeed([gateway.rpc for gateway in self._gateways])

    async def is_unspent(self, outpoint: Outpoint, *, with_pool: bool) -> bool:
        """Tell whether the output exists and nothing spends it, as a quorum tells it."""
        return await self._agreed(
            lambda gateway: gateway.is_unspent(outpoint, with_pool=with_pool), f"of {outpoint}"
        )

    async def scan(self, addresses: Sequence[str]) -> UnspentScan:
        """Return all unspent outputs of *addresses* as of one block, as a quorum tells it."""
        return await self._agreed(lambda gateway: gateway.scan(addresses), "of unspent outputs")

    async def fee_rate(self, target_blocks: int) -> FeeRate:
        """Return the median of what the nodes estimate; of their fallbacks, if none can."""
        answers = await self._ask_all(lambda gateway: gateway.fee_rate(target_blocks))
        if not answers:
            raise NodeUnavailable(f"no node of {self.chain} says what to pay")
        told = [item for item in answers.values() if item.source is RateSource.NODE]
        ranked = sorted(told or answers.values(), key=lambda item: item.rate)
        return ranked[(len(ranked) - 1) // 2]

    async def min_relay_rate(self) -> int:
        """Return a rate that a quorum takes into its pools now."""
        answers = await self._ask_all(lambda gateway: gateway.min_relay_rate())
        return self._enough_for(answers, "say what they relay")

    async def incremental_rate(self) -> int:
        """Return a step at which a quorum takes a replacement."""
        answers = await self._ask_all(lambda gateway: gateway.incremental_rate())
        return self._enough_for(answers, "say what a replacement must pay")

    async def pool_spender(self, outpoint: Outpoint) -> str | None:
        """Return the transaction in any node's pool that spends the output."""
        return await self._first_found(lambda gateway: gateway.pool_spender(outpoint))

    async def accepts(self, raw: bytes) -> PoolVerdict:
        """Return whether the healthiest node's pool would take the bytes."""
        return await self._first(lambda gateway: gateway.accepts(raw))

    def _enough_for(self, answers: dict[int, int], what: str) -> int:
        """Return the lowest rate that satisfies a quorum."""
        self._require_quorum(answers, what)
        return sorted(answers.values())[self._quorum - 1]
