"""The nouns of a chain: blocks, what they hold for us, and the steps that a follower takes.

Hashes and addresses are in the one spelling of their chain: on EVM chains ``"0x"`` with 64 lower-case
hexadecimal digits and EIP-55 mixed case, on Bitcoin 64 lower-case hexadecimal digits as nodes print
them and `chain.bitcoin.addresses.canonical_address`. Amounts and fees are integers of the smallest
unit (wei, satoshi).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from kernel.errors import BadInput
from kernel.states import StateTable

TOP: Final = "top"
"""Position of the value that a transaction itself carries."""

UNREGISTERED_PER_BLOCK_MAX: Final = 16
"""Transfers of unregistered contracts that one block may show: anybody can make any number of them."""

REORG_DEPTH_MAX: Final = 1_000
"""No policy may walk back further in one go: beyond it people set the chain up anew."""

BLOCKS_MAX: Final = 10_000
"""Blocks followed in one call, at most."""


def log_position(index: int) -> str:
    """Return the position of the log that is *index*-th (from 0) among all logs of its receipt."""
    return f"log:{index}"


def trace_position(index: int) -> str:
    """Return the position of value that contracts passed on: *index*-th (from 0) in its transaction.

    All that moved counts, in the order of execution, whoever it was paid to; a frame that moved
    nothing does not, because not every node shows it.
    """
    return f"trace:{index}"


def output_position(index: int) -> str:
    """Return the position of the *index*-th output (from 0) of a transaction of Bitcoin."""
    return f"vout:{index}"


DELTA: Final = "delta:"
"""How the positions begin that `delta_position` gives."""


def delta_position(height: int) -> str:
    """Return the position of what a balance says arrived by *height* and nothing explains.

    No transaction is known for it, so it is only ever nobody's.
    """
    return f"{DELTA}{height}"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of one chain. Its identity is the hash; a height names a block only for a while."""

    chain: str
    height: int
    hash: str
    parent: str
    time: datetime


COINBASE: Final = "coinbase"
"""The sender of coins that a block of Bitcoin makes."""

NO_ADDRESS: Final = "nonstandard"
"""The sender whose output script has no address."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Value that moved, proven by a successful transaction of the block.

    ``(chain, tx_hash, position)`` is the identity: it stays the same when the transaction is mined
    again in another block or at another place. It is never a block-scoped index.

    Attributes:
        position: `TOP` for the transaction's own value, ``log:<n>`` for a token transfer,
            ``trace:<n>`` for native value that a contract passed on, ``delta:<height>`` for
            what only a balance shows, ``vout:<n>`` for an output.
        sender: on Bitcoin an address of ours if any input spends an output of ours, else the address
            of the first input's output, `COINBASE` for new coins, `NO_ADDRESS` where there is none.
        recipient: on Bitcoin the address of the output, or ``script:<hex>`` where it has none.
        contract: the token's contract; None for the native asset.
        amount: positive, in the smallest unit of what moved.
    """

    tx_hash: str
    position: str
    sender: str
    recipient: str
    contract: str | None
    amount: int


@dataclass(frozen=True, slots=True)
class TransactionOutcome:
    """What became of a transaction that is in a block. The fee is paid even when it failed.

    Attributes:
        fee: wei paid for it: gas used times effective gas price, plus what a rollup charges extra.
        recipient: whom the transaction calls or pays; None when it created a contract.
    """

    tx_hash: str
    sender: str
    nonce: int
    succeeded: bool
    fee: int
    recipient: str | None


@dataclass(frozen=True, slots=True)
class Spend:
    """An output that paid a watched address was spent by a transaction of the block (Bitcoin).

    Attributes:
        tx_hash: the transaction that spends; *index* is its input, from 0.
        spent_tx, spent_index: the outpoint.
        address: the watched address that the outpoint had paid; *amount* is what it held.
    """

    tx_hash: str
    index: int
    spent_tx: str
    spent_index: int
    address: str
    amount: int


@dataclass(frozen=True, slots=True)
class BlockContents:
    """What a block holds for a watch list.

    Attributes:
        movements: from or to a watched address, in block order.
        outcomes: of every transaction sent by a watched address, in block order.
        traced: whether native value passed on by contracts is among the movements. Where it is not,
            only balances show it.
        left_out: transfers of unregistered contracts beyond `UNREGISTERED_PER_BLOCK_MAX`; told when
            the block is read, and not stored with it.
        spends: of outputs that had paid a watched address, in block order; empty on EVM chains.
    """

    block: Block
    movements: tuple[Movement, ...] = ()
    outcomes: tuple[TransactionOutcome, ...] = ()
    traced: bool = False
    left_out: int = 0
    spends: tuple[Spend, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchList:
    """Whose movements count: our addresses, and the registered token contracts (EIP-55)."""

    addresses: frozenset[str]
    contracts: frozenset[str]

    def concerns(self, movement: Movement) -> bool:
        """Tell whether the movement is of anything registered, and from or to an address of ours."""
        if movement.contract is not None and movement.contract not in self.contracts:
            return False
        return movement.sender in self.addresses or movement.recipient in self.addresses

    def is_pressed_on(self, movement: Movement) -> bool:
        """Tell whether an unregistered contract says that a stranger sent us something.

        That is shown, to be quarantined. What such a contract says that we sent is of no effect at
        all: anybody can write it.
        """
        foreign = movement.contract is not None and movement.contract not in self.contracts
        ours = movement.recipient in self.addresses and movement.sender not in self.addresses
        return foreign and ours


def shown(movements: Iterable[Movement], watch: WatchList) -> tuple[tuple[Movement, ...], int]:
    """Return what a block shows of its *movements*, in their order, and how many it leaves out."""
    kept: list[Movement] = []
    pressed = 0
    for movement in movements:
        if watch.is_pressed_on(movement):
            pressed += 1
            if pressed > UNREGISTERED_PER_BLOCK_MAX:
                continue
        elif not watch.concerns(movement):
            continue
        kept.append(movement)
    return tuple(kept), max(0, pressed - UNREGISTERED_PER_BLOCK_MAX)


@dataclass(frozen=True, slots=True)
class Included:
    """The block has become part of the chain that we follow.

    Attributes:
        late: the block was included before, and *contents* are only what that reading missed.
    """

    contents: BlockContents
    late: bool = False


@dataclass(frozen=True, slots=True)
class Orphaned:
    """The block is no longer part of it; *contents* are those stored when it was included."""

    contents: BlockContents


ChainStep = Included | Orphaned


class BroadcastOutcome(StrEnum):
    """What is known after signed bytes were handed to a node."""

    ACCEPTED = "accepted"
    """The node has them, had them already, or they are mined."""
    REJECTED = "rejected"
    """Positive evidence: these bytes can never be mined as things stand."""
    UNKNOWN = "unknown"
    """No evidence: send the same bytes again, for ever, or look for them on the chain."""


@dataclass(frozen=True, slots=True)
class BroadcastReport:
    """The outcome of one broadcast and, in words, what the node said."""

    outcome: BroadcastOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FeeQuote:
    """What to bid per unit of gas now, in wei (EIP-1559)."""

    max_fee_per_gas: int
    max_priority_fee_per_gas: int


@dataclass(frozen=True, slots=True)
class PendingMovement:
    """Value that would move if a transaction in a node's pool were mined as it stands.

    It proves nothing: it may be replaced, dropped, or fail. ``(sender, nonce)`` tells by what: the
    first transaction mined with them settles the fate of all others.

    Attributes:
        recipient: the watched address that would receive.
        inputs: the outpoints that it spends (Bitcoin, where *sender* and *nonce* tell nothing): the
            first transaction mined that spends one of them settles the fate of all others.
        contract: the token's contract; None for the native asset.
        amount: positive, in the smallest unit of what would move.
    """

    tx_hash: str
    sender: str
    nonce: int
    recipient: str
    contract: str | None
    amount: int
    inputs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a balance that a token's contract does not tell.

    *why* is in words of ours and the same for every node, so that several can agree on it.
    """

    why: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call would have done at the head, had it been a transaction.

    Attributes:
        returned: the data that it returns; empty when it fails.
        revert: the node's words when it fails.
    """

    succeeded: bool
    returned: bytes = b""
    revert: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What one provider says is its newest block, or in words why it said nothing."""

    provider: str
    block: Block | None
    trouble: str = ""


class BlockState(StrEnum):
    """Whether a stored block is on the chain that we follow."""

    CANONICAL = "canonical"
    ORPHANED = "orphaned"


BLOCK_STATES: Final = StateTable(
    schema="chain",
    table="block",
    initial=frozenset({BlockState.CANONICAL}),
    edges=frozenset(
        {
            (BlockState.CANONICAL, BlockState.ORPHANED),
            (BlockState.ORPHANED, BlockState.CANONICAL),
        }
    ),
)


class FollowState(StrEnum):
    """Whether a chain is being followed."""

    RUNNING = "running"
    HALTED = "halted"


FOLLOW_STATES: Final = StateTable(
    schema="chain",
    table="following",
    initial=frozenset({FollowState.RUNNING}),
    edges=frozenset(
        {(FollowState.RUNNING, FollowState.HALTED), (FollowState.HALTED, FollowState.RUNNING)}
    ),
)


@dataclass(frozen=True, slots=True)
class FollowPolicy:
    """How a chain is followed.

    Attributes:
        reorg_depth_max: blocks that may be orphaned at once; a deeper reorganisation halts the
            chain until two operators resume it.
        start_height: the first block whose contents count when the chain has no cursor yet. Take
            one that is final: a reorganisation from below it halts the chain for good.
        reread_after: a block that was read before so many blocks stood on it is read once more when
            they do, and what the first reading missed is included late; 0: never.
    """

    reorg_depth_max: int = 64
    start_height: int = 0
    reread_after: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.reorg_depth_max <= REORG_DEPTH_MAX:
            raise BadInput(f"a reorganisation policy allows 1 to {REORG_DEPTH_MAX} blocks")
        if self.start_height < 0:
            raise BadInput("a chain is followed from height 0 or later")
        if not 0 <= self.reread_after <= REORG_DEPTH_MAX:
            raise BadInput(f"blocks are read again at most {REORG_DEPTH_MAX} blocks later")


@dataclass(frozen=True, slots=True)
class Following:
    """How it stands with following a chain.

    Attributes:
        state: HALTED when people must look; *reason* says why.
        reread: up to here no block needs a second reading; None before the first block.
        reread_failures: turns in a row in which it got no further; *reread_trouble* says why.
    """

    chain: str
    state: FollowState
    reason: str = ""
    reread: int | None = None
    reread_failures: int = 0
    reread_trouble: str = ""


@dataclass(frozen=True, slots=True)
class FollowReport:
    """What one call of `chain.follow.follow` did.

    Attributes:
        included, orphaned: steps applied and committed.
        cursor: the block the books are now exact at; None when nothing was ever read.
        head: the node's newest block when the call began, if it was asked.
        caught_up: whether the cursor is the node's head.
        state: HALTED when people must look; *reason* says why.
        reread: blocks that were read a second time.
        completed: how many of those held something that the first reading had missed.
        reread_trouble: why the second reading did not get as far as it should; empty when it did.
    """

    included: int
    orphaned: int
    cursor: Block | None
    head: Block | None
    caught_up: bool
    state: FollowState = FollowState.RUNNING
    reason: str = ""
    reread: int = 0
    completed: int = 0
    reread_trouble: str = ""
