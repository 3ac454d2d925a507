"""What Causeway asks of a node of a chain: the one door between the chain and the rest.

``chain.evm.gateway.EvmGateway`` speaks to a real node, `chain.testing.ScriptedGateway` is a chain in
memory; both pass the same conformance tests.
"""

from __future__ import annotations

from typing import Protocol

from chain.model import (
    Block,
    BlockContents,
    BroadcastReport,
    FeeQuote,
    TransactionOutcome,
    WatchList,
)


class ChainGateway(Protocol):
    """A node, or several that agree. Every method but `broadcast` may raise `NodeTrouble`."""

    async def chain_id(self) -> int:
        """Return the network id that transactions are signed for."""
        ...

    async def head(self) -> Block:
        """Return the newest block of the node."""
        ...

    async def block_at(self, height: int) -> Block | None:
        """Return the block that the node has at *height* now; None when it has none."""
        ...

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Return what exactly this block (by hash) holds for *watch*.

        Raises:
            BlockGone: the node does not have the block (any more).
            IncompleteAnswer: what the node says contradicts the block; nothing may be concluded.
        """
        ...

    async def finalized_height(self) -> int:
        """Return the height up to which the chain itself promises no reorganisation."""
        ...

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        """Return what *address* holds after exactly the block *at*, in smallest units.

        Of the token *contract*; of the native asset when *contract* is None.

        Raises:
            BlockGone: the node no longer has the block, or no longer its state.
        """
        ...

    async def next_nonce(self, address: str) -> int:
        """Return how many transactions of *address* are mined at the head (none pending)."""
        ...

    async def fees(self) -> FeeQuote:
        """Return what to bid for the next blocks."""
        ...

    async def estimate_gas(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> int:
        """Return the gas that the call would use at the head.

        Raises:
            CallReverted: the call would fail; nothing may be sent.
        """
        ...

    async def broadcast(self, raw: bytes, tx_hash: str) -> BroadcastReport:
        """Hand signed bytes to the node, once, and say what is known afterwards.

        Never raises for what the node or the network does: that is UNKNOWN. Sending the same bytes
        again is always safe. REJECTED needs evidence: bytes that no node can ever take, or a nonce
        that another, named transaction has spent on the node's chain.

        Raises:
            WrongChain: the node serves another chain; nothing was sent.
        """
        ...

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when it is in no block of the node.

        None is not evidence that it will never be mined.
        """
        ...
