"""What Causeway asks of a node of a chain: the one door between the chain and the rest.

``chain.evm.gateway.EvmGateway`` speaks to a real node, `chain.testing.ScriptedGateway` is a chain in
memory; both pass the same conformance tests. `chain.bitcoin.ports` is what Bitcoin adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chain.model import (
    Block,
    BlockContents,
    BroadcastReport,
    CallResult,
    FeeQuote,
    Head,
    PendingMovement,
    TransactionOutcome,
    WatchList,
)


class ChainReader(Protocol):
    """What every kind of chain answers: enough to follow it, and to hand signed bytes over.

    Every method may raise `NodeTrouble`, but for `broadcast`, `broadcast_many` and `heads`.
    """

    @property
    def traces(self) -> bool:
        """Whether `contents` shows native value that contracts pass on."""
        ...

    @property
    def quorum(self) -> int:
        """How many providers must have a block before anything is confirmed against it."""
        ...

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

    async def contents_of_range(
        self, first: Block, last: Block, watch: WatchList
    ) -> list[BlockContents]:
        """Return what the blocks from *first* to *last* hold, in order, both included.

        Meant for blocks that are final: logs are asked for by heights. The blocks returned link by
        their parents from *first* to *last*, and every answer is held against their hashes.

        Raises:
            BlockGone: the node has other blocks at these heights now.
            IncompleteAnswer: what the node says contradicts the blocks.
            RangeTooLarge: the node will not answer for so many blocks at once.
        """
        ...

    async def heads(self) -> tuple[Head, ...]:
        """Return what each provider says is its newest block; never raises for what they do."""
        ...

    async def has_block(self, block: Block) -> int:
        """Return how many providers have exactly this hash at the block's height now."""
        ...

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits in the pool for watched addresses: bounded, and never proof.

        Empty where the node shows nothing of its pool.
        """
        ...

    async def finalized_height(self) -> int:
        """Return the height up to which the chain itself promises no reorganisation."""
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

    async def broadcast_many(self, items: Sequence[tuple[bytes, str]]) -> list[BroadcastReport]:
        """Hand several ``(raw, tx_hash)`` to the node, by the rules of `broadcast`, and in order.

        Raises:
            WrongChain: the node serves another chain; nothing was sent.
        """
        ...

    async def find_transaction(self, tx_hash: str) -> TransactionOutcome | None:
        """Return the outcome of a mined transaction; None when it is in no block of the node.

        None is not evidence that it will never be mined.
        """
        ...


class ChainGateway(ChainReader, Protocol):
    """A node of a chain with accounts (EVM), or several that agree."""

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

    async def code_at(self, address: str) -> bytes:
        """Return the code at *address* at the head; empty when no contract is there."""
        ...

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        """Return what the call would do at the head; a call that fails is an answer, no error."""
        ...
