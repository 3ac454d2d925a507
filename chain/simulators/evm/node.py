"""The node: a canonical chain, a pool, a clock that can be moved, and what happens between them.

Everything here is synchronous and belongs to one thread at a time; ``server`` sees to that. Each
verb leaves its events in order behind; ``take_events`` hands them over.

Reorgs are honest: the blocks that leave are announced as removed, and their transactions go back
to the pool unless the new branch has used their nonces. ``revert`` is not a reorg but time travel
(as in anvil): the chain of then is back, and what was mined since is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chain.simulators.evm.accounts import DevAccount, derive_accounts
from chain.simulators.evm.admission import require_admissible
from chain.simulators.evm.errors import InvalidParams, ServerRefusal
from chain.simulators.evm.execution import (
    VISIBLE_ANCESTORS,
    Execution,
    minimum_gas,
    mix_hash,
)
from chain.simulators.evm.fees import next_base_fee
from chain.simulators.evm.mempool import Mempool
from chain.simulators.evm.model import (
    Block,
    BlockAdded,
    BlockPlan,
    BlockRemoved,
    Call,
    CallOutcome,
    ChainEvent,
    EvmSimulatorSettings,
    MiningMode,
    PendingSeen,
    Receipt,
    Transaction,
)
from chain.simulators.evm.tracing import CallFrame
from chain.simulators.evm.transactions import decode_transaction
from kernel.clock import Clock

MAX_BLOCKS_PER_CALL = 10_000
MAX_SNAPSHOTS = 1_000
MAX_AUTOMINED_BLOCKS = 100

#: Times and fees stay in ranges that every client can hold: 2**40 s lie beyond the year 36,000.
MAX_TIMESTAMP = 1 << 40
MAX_BASE_FEE_WEI = 1 << 64


@dataclass(frozen=True, slots=True)
class _Snapshot:
    blocks: tuple[Block, ...]
    clock_offset_s: int


class Node:
    """A chain and a pool under one set of settings."""

    def __init__(self, settings: EvmSimulatorSettings) -> None:
        self.settings = settings
        self.accounts: tuple[DevAccount, ...] = derive_accounts(
            settings.mnemonic, settings.accounts
        )
        self._clock: Clock = settings.clock
        self._events: list[ChainEvent] = []
        self.reset()

    def reset(self) -> None:
        """Begin again at the genesis, as a new process with the same settings would."""
        settings = self.settings
        self.pool = Mempool()
        self.mode = _mode_of(settings)
        self.interval_s = settings.block_time_s
        self._execution = Execution(chain_id=settings.chain_id, gas_limit=settings.gas_limit)
        self._clock_offset_s = 0
        self._forced_timestamp: int | None = None
        self._forced_base_fee: int | None = None
        self._blocks_made = 0
        self._snapshots: dict[int, _Snapshot] = {}
        self._snapshot_ids = 0
        self._state_read: tuple[Block, Any] | None = None
        self._blocks: list[Block] = []
        self._heights: dict[bytes, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._append(self._make_genesis())
        self._events.clear()

    # ------------------------------------------------------------------ reading

    @property
    def chain_id(self) -> int:
        """Return the chain id that transactions must be signed for."""
        return self.settings.chain_id

    @property
    def head(self) -> Block:
        """Return the newest block."""
        return self._blocks[-1]

    def lagging(self, epochs: int) -> Block:
        """Return the block that lags the head by that many epochs (1: safe, 2: finalized)."""
        return self._blocks[max(0, self.head.number - epochs * self.settings.slots_in_an_epoch)]

    def find_block(self, number: int) -> Block | None:
        """Return the canonical block at a height, or None above the head."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def find_block_by_hash(self, block_hash: bytes) -> Block | None:
        """Return the canonical block with that hash, or None (also for an orphaned one)."""
        height = self._heights.get(block_hash)
        return None if height is None else self._blocks[height]

    def blocks_between(self, first: int, last: int) -> Sequence[Block]:
        """Return the canonical blocks from *first* to *last*, both included."""
        return self._blocks[first : last + 1]

    def find_receipt(self, transaction_hash: bytes) -> tuple[Block, Receipt] | None:
        """Return the canonical block and receipt of a mined transaction, or None."""
        place = self._places.get(transaction_hash)
        if place is None:
            return None
        block = self._blocks[place[0]]
        return block, block.receipts[place[1]]

    def pending_block(self) -> Block:
        """Return the block that would be made now; it is not kept."""
        plan = BlockPlan(
            timestamp=self._timestamp_after(self.head),
            base_fee_per_gas=self.next_base_fee(),
            mix_hash=mix_hash(self.settings.seed, self._blocks_made + 1),
        )
        return self._build(self._blocks, plan, self._executable(plan.base_fee_per_gas))

    def state(self, block: Block) -> Any:
        """Return py-evm's view of the state after *block*; for reading only."""
        if self._state_read is None or self._state_read[0] is not block:
            self._state_read = (block, self._execution.state(block))
        return self._state_read[1]

    def nonce_of(self, address: bytes) -> int:
        """Return the account's nonce at the head: how many of its transactions are mined."""
        return int(self.state(self.head).get_nonce(address))

    def next_nonce(self, address: bytes) -> int:
        """Return the nonce for the account's next transaction, pending ones counted."""
        return self.pool.next_nonce(address, self.nonce_of(address))

    def next_base_fee(self) -> int:
        """Return the base fee of the next block in wei per gas."""
        if self._forced_base_fee is not None:
            return self._forced_base_fee
        return next_base_fee(self.head)

    def call(self, call: Call, block: Block) -> CallOutcome:
        """Run a message on the state after *block* without keeping anything."""
        return self._execution.call(block, self._ancestors(self._blocks[: block.number + 1]), call)

    def estimate_gas(self, call: Call, block: Block) -> int:
        """Return the least gas limit with which the call succeeds after *block*."""
        ancestors = self._ancestors(self._blocks[: block.number + 1])
        return self._execution.estimate_gas(block, ancestors, call)

    def trace(self, block: Block) -> tuple[CallFrame, ...]:
        """Return the call frames of each transaction of a canonical block."""
        if not block.receipts:
            return ()
        ancestors = self._ancestors(self._blocks[: block.number])
        return self._execution.trace(self._blocks[block.number - 1], ancestors, block)

    def take_events(self) -> list[ChainEvent]:
        """Return what happened since the last call, oldest first, and forget it."""
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------ transactions

    def decode(self, raw: bytes) -> Transaction:
        """Return the signed transaction in *raw*, refusing one for another chain."""
        return decode_transaction(raw, chain_id=self.chain_id)

    def send(self, transaction: Transaction) -> None:
        """Take a transaction into the pool, and mine it at once in the instant mode.

        Raises:
            TransactionRefused: it can never be included, or the pool does not take it.
        """
        state = self.state(self.head)
        nonce = state.get_nonce(transaction.sender)
        if self.pool.find(transaction.hash) is None:
            require_admissible(
                transaction,
                intrinsic_gas=minimum_gas(transaction.evm),
                gas_limit=self.settings.gas_limit,
                nonce=nonce,
                balance=state.get_balance(transaction.sender),
            )
        self.pool.add(transaction, account_nonce=nonce)
        self._events.append(PendingSeen(transaction))
        if self.mode is MiningMode.INSTANT:
            self._mine_what_is_ready()

    # ------------------------------------------------------------------ making blocks

    def mine(self, count: int = 1, *, interval_s: int | None = None) -> None:
        """Make *count* blocks, each *interval_s* seconds after its parent (default: by the clock)."""
        if not 0 <= count <= MAX_BLOCKS_PER_CALL:
            raise InvalidParams(f"cannot mine {count} blocks: the limit is {MAX_BLOCKS_PER_CALL}")
        for _ in range(count):
            if interval_s is not None:
                self.set_next_timestamp(self.head.timestamp + max(interval_s, 1))
            self._mine_one()

    def set_automine(self, *, enabled: bool) -> None:
        """Switch between a block per transaction and blocks on demand.

        Switching it on mines what waits already.
        """
        if enabled:
            self.mode, self.interval_s = MiningMode.INSTANT, 0.0
            self._mine_what_is_ready()
        elif self.mode is MiningMode.INSTANT:
            self.mode = MiningMode.MANUAL

    def set_interval(self, seconds: float) -> None:
        """Make a block every so many seconds; zero means on demand only."""
        self.interval_s = seconds
        self.mode = MiningMode.INTERVAL if seconds > 0 else MiningMode.MANUAL

    def reorg(self, depth: int, inclusions: Sequence[tuple[Transaction, int]]) -> None:
        """Replace the newest *depth* blocks by as many new ones.

        Each inclusion is a transaction and the offset (0: the first new block) of its block; the
        other blocks are empty. Either the whole new branch is made, or nothing changes.

        Raises:
            InvalidParams: the depth exceeds the height, an offset the depth, or a transaction
                cannot be executed in its place.
        """
        self._require_depth(depth)
        beyond = [offset for _, offset in inclusions if not 0 <= offset < depth]
        if beyond:
            raise InvalidParams(
                "Block number for reorg tx will exceed the reorged chain height. "
                f"Block number {beyond[0]} must not exceed (depth-1) {depth - 1}"
            )
        branch = list(self._blocks[: len(self._blocks) - depth])
        fork_height = len(branch)
        for offset in range(depth):
            wanted = [transaction for transaction, at in inclusions if at == offset]
            block = self._build(branch, self._plan(branch[-1]), wanted)
            _require_included(wanted, block)
            branch.append(block)
        orphans = self._remove_from(fork_height)
        for block in branch[fork_height:]:
            self._append(block)
        self._return_to_pool(orphans)

    def rollback(self, depth: int) -> None:
        """Remove the newest *depth* blocks; their transactions go back to the pool."""
        self._require_depth(depth)
        self._return_to_pool(self._remove_from(len(self._blocks) - depth))

    # ------------------------------------------------------------------ development switches

    def snapshot(self) -> int:
        """Remember the chain of now and return the snapshot's number."""
        if len(self._snapshots) >= MAX_SNAPSHOTS:
            raise ServerRefusal(f"too many snapshots: the limit is {MAX_SNAPSHOTS}")
        number = self._snapshot_ids
        self._snapshot_ids += 1
        self._snapshots[number] = _Snapshot(tuple(self._blocks), self._clock_offset_s)
        return number

    def revert(self, number: int) -> bool:
        """Go back to a snapshot; it and all later ones are used up. False if there is none."""
        snapshot = self._snapshots.get(number)
        if snapshot is None:
            return False
        self._snapshots = {n: s for n, s in self._snapshots.items() if n < number}
        self._clock_offset_s = snapshot.clock_offset_s
        common = _common_length(self._blocks, snapshot.blocks)
        self._remove_from(common)
        for block in snapshot.blocks[common:]:
            self._append(block)
        # An edited balance is part of the state, not of the block's hash.
        self._blocks = list(snapshot.blocks)
        self._forget_used(self.pool.senders())
        return True

    def set_balance(self, address: bytes, balance: int) -> None:
        """Give an account a balance in wei, from the next read on."""
        self._blocks[-1] = self._execution.with_balance(self.head, address, balance)

    def increase_time(self, seconds: int) -> int:
        """Move the chain's clock forward and return by how much it is ahead in all."""
        if self.head.timestamp + self._clock_offset_s + seconds > MAX_TIMESTAMP:
            raise InvalidParams(f"Timestamp error: the clock cannot be moved by {seconds} s")
        self._clock_offset_s += seconds
        return self._clock_offset_s

    def set_next_timestamp(self, timestamp: int) -> None:
        """Fix the Unix time of the next block; the clock goes on from there."""
        if timestamp <= self.head.timestamp:
            raise InvalidParams(
                f"Timestamp error: {timestamp} is lower than or equal to "
                f"previous block's timestamp {self.head.timestamp}"
            )
        if timestamp > MAX_TIMESTAMP:
            raise InvalidParams(f"Timestamp error: {timestamp} exceeds {MAX_TIMESTAMP}")
        self._forced_timestamp = timestamp
        if self.settings.timestamp is None:
            self._clock_offset_s = timestamp - self._wall_clock()

    def set_next_base_fee(self, base_fee: int) -> None:
        """Fix the base fee (wei per gas) of the next block."""
        if base_fee > MAX_BASE_FEE_WEI:
            raise InvalidParams(f"base fee {base_fee} exceeds {MAX_BASE_FEE_WEI}")
        self._forced_base_fee = base_fee

    # ------------------------------------------------------------------ inside

    def _make_genesis(self) -> Block:
        timestamp = self.settings.timestamp
        return self._execution.make_genesis(
            {account.address: self.settings.balance_wei for account in self.accounts},
            timestamp=self._wall_clock() if timestamp is None else timestamp,
            seed=mix_hash(self.settings.seed, 0),
        )

    def _mine_what_is_ready(self) -> None:
        for _ in range(MAX_AUTOMINED_BLOCKS):
            if next(iter(self._executable(self.next_base_fee())), None) is None:
                return
            if not self._mine_one().receipts:
                return

    def _mine_one(self) -> Block:
        plan = self._plan(self.head)
        block = self._build(self._blocks, plan, self._executable(plan.base_fee_per_gas))
        self._append(block)
        self._forget_used({receipt.transaction.sender for receipt in block.receipts})
        return block

    def _plan(self, parent: Block) -> BlockPlan:
        """Decide the next block and use up what was fixed for it."""
        base_fee, self._forced_base_fee = self._forced_base_fee, None
        timestamp = self._timestamp_after(parent)
        if self.settings.timestamp is not None:
            self._clock_offset_s = 0
        self._forced_timestamp = None
        self._blocks_made += 1
        return BlockPlan(
            timestamp=timestamp,
            base_fee_per_gas=next_base_fee(parent) if base_fee is None else base_fee,
            mix_hash=mix_hash(self.settings.seed, self._blocks_made),
        )

    def _timestamp_after(self, parent: Block) -> int:
        if self._forced_timestamp is not None and self._forced_timestamp > parent.timestamp:
            return self._forced_timestamp
        if self.settings.timestamp is not None:
            return parent.timestamp + 1 + self._clock_offset_s
        return max(parent.timestamp + 1, self._wall_clock() + self._clock_offset_s)

    def _wall_clock(self) -> int:
        return int(self._clock.now().timestamp())

    def _executable(self, base_fee: int) -> Iterable[Transaction]:
        return self.pool.in_block_order(self.state(self.head).get_nonce, base_fee)

    def _build(
        self, branch: Sequence[Block], plan: BlockPlan, candidates: Iterable[Transaction]
    ) -> Block:
        return self._execution.build(branch[-1], self._ancestors(branch), plan, candidates)

    def _ancestors(self, branch: Sequence[Block]) -> tuple[bytes, ...]:
        return tuple(block.hash for block in reversed(branch[-VISIBLE_ANCESTORS:]))

    def _append(self, block: Block) -> None:
        self._blocks.append(block)
        self._heights[block.hash] = block.number
        for receipt in block.receipts:
            self._places[receipt.transaction.hash] = (block.number, receipt.index)
        self._events.append(BlockAdded(block))

    def _remove_from(self, height: int) -> list[Transaction]:
        """Take the blocks from *height* up off the chain and return their transactions."""
        removed = self._blocks[height:]
        del self._blocks[height:]
        for block in reversed(removed):
            del self._heights[block.hash]
            for receipt in block.receipts:
                del self._places[receipt.transaction.hash]
            self._events.append(BlockRemoved(block))
        return [receipt.transaction for block in removed for receipt in block.receipts]

    def _return_to_pool(self, orphans: Sequence[Transaction]) -> None:
        """Take orphaned transactions back, and forget what the new branch has used up."""
        self._forget_used(self.pool.senders())
        for transaction in self.pool.restore(orphans, self.state(self.head).get_nonce):
            self._events.append(PendingSeen(transaction))

    def _forget_used(self, senders: Iterable[bytes]) -> None:
        state = self.state(self.head)
        for sender in senders:
            self.pool.forget_used(sender, state.get_nonce(sender))

    def _require_depth(self, depth: int) -> None:
        height = self.head.number
        if depth < 0 or depth > height:
            raise InvalidParams(
                "Reorg depth must not exceed current chain height: "
                f"current height {height}, depth {depth}"
            )


def _mode_of(settings: EvmSimulatorSettings) -> MiningMode:
    if settings.block_time_s > 0:
        return MiningMode.INTERVAL
    return MiningMode.INSTANT if settings.automine else MiningMode.MANUAL


def _require_included(wanted: Sequence[Transaction], block: Block) -> None:
    included = {receipt.transaction.hash for receipt in block.receipts}
    for transaction in wanted:
        if transaction.hash not in included:
            raise InvalidParams(
                f"reorg transaction 0x{transaction.hash.hex()} cannot be executed in block "
                f"{block.number} of the new branch: its nonce, balance or gas does not fit there"
            )


def _common_length(left: Sequence[Block], right: Sequence[Block]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one.hash != other.hash:
            break
        length += 1
    return length
