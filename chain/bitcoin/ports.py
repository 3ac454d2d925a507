"""What Causeway asks of a node of Bitcoin.

`chain.bitcoin.gateway.BitcoinGateway` speaks to a real node, `chain.bitcoin.node_set.NodeSet` to several,
`chain.bitcoin.testing.ScriptedBitcoin` is a chain in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chain.bitcoin.model import FeeRate, PoolVerdict, UnspentScan
from chain.bitcoin.networks import Network
from chain.bitcoin.transactions import Outpoint
from chain.ports import ChainReader


class BitcoinReader(ChainReader, Protocol):
    """A node of Bitcoin, or several that agree. Every method may raise `NodeTrouble`.

    Of `broadcast`: REJECTED means that a named, confirmed transaction spends one of the inputs, or
    that no node can ever take the bytes. A conflict in a pool, a fee that is too low, or inputs that
    are not there (yet) are UNKNOWN: pools forget and blocks come back.
    """

    @property
    def network(self) -> Network:
        """The network that the node serves."""
        ...

    async def fee_rate(self, target_blocks: int) -> FeeRate:
        """Return what to pay to be mined within *target_blocks*; never below `min_relay_rate`."""
        ...

    async def min_relay_rate(self) -> int:
        """Return the lowest rate that the node takes into its pool now."""
        ...

    async def incremental_rate(self) -> int:
        """Return by what rate a replacement must pay more than what it replaces (BIP 125)."""
        ...

    async def is_unspent(self, outpoint: Outpoint, *, with_pool: bool) -> bool:
        """Tell whether the output exists and nothing spends it.

        *with_pool*: outputs of the pool exist too, and what the pool spends is spent.
        """
        ...

    async def scan(self, addresses: Sequence[str]) -> UnspentScan:
        """Return all unspent confirmed outputs of *addresses* as of one block.

        An entry may be an output descriptor (``wpkh(…)``) as well. It takes a node a minute or more.
        """
        ...

    async def pool_spender(self, outpoint: Outpoint) -> str | None:
        """Return the id of the transaction in the pool that spends the output; None if none does."""
        ...

    async def accepts(self, raw: bytes) -> PoolVerdict:
        """Return whether the pool would take the bytes; nothing is handed over."""
        ...
