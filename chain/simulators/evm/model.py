"""Values of the simulated chain: settings, transactions, blocks, receipts and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kernel.clock import Clock, SystemClock

DEFAULT_CHAIN_ID = 31337
DEFAULT_MNEMONIC = "test test test test test test test test test test test junk"
DEFAULT_BALANCE_WEI = 10_000 * 10**18
DEFAULT_GAS_LIMIT = 30_000_000
DEFAULT_SLOTS_IN_AN_EPOCH = 32
GENESIS_BASE_FEE_WEI = 1_000_000_000

#: The tip that ``eth_maxPriorityFeePerGas`` suggests, in wei per gas.
SUGGESTED_TIP_WEI = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EvmSimulatorSettings:
    """How one simulator is set up.

    With ``timestamp`` set, block times no longer follow ``clock``: the genesis block carries that
    Unix time and every block adds one second, so that the same calls give the same hashes.
    ``seed`` feeds the randomness of the blocks (``mixHash``): two seeds give two chains.
    ``slots_in_an_epoch`` is the lag of the ``safe`` tag; ``finalized`` lags twice as much.
    """

    host: str = "127.0.0.1"
    port: int = 8545
    chain_id: int = DEFAULT_CHAIN_ID
    mnemonic: str = DEFAULT_MNEMONIC
    accounts: int = 10
    balance_wei: int = DEFAULT_BALANCE_WEI
    gas_limit: int = DEFAULT_GAS_LIMIT
    slots_in_an_epoch: int = DEFAULT_SLOTS_IN_AN_EPOCH
    automine: bool = True
    block_time_s: float = 0.0
    seed: int = 0
    timestamp: int | None = None
    clock: Clock = field(default_factory=SystemClock)


class MiningMode(Enum):
    """When blocks are made: at each transaction, at intervals, or only when asked."""

    INSTANT = "instant"
    INTERVAL = "interval"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed transaction with the fields that the pool and the chain decide upon.

    Fees are wei per gas; a legacy transaction bids its gas price in both fields. ``to`` is empty
    for a contract creation. ``evm`` is py-evm's own object, which execution needs.
    """

    hash: bytes
    sender: bytes
    nonce: int
    gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    to: bytes
    value: int
    data: bytes
    raw: bytes
    evm: Any = field(compare=False, repr=False, default=None)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event that a contract emitted."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a transaction did in its block. ``first_log_index`` counts within the block."""

    transaction: Transaction
    index: int
    status: int
    gas_used: int
    cumulative_gas_used: int
    effective_gas_price: int
    contract_address: bytes | None
    logs: tuple[LogEntry, ...]
    first_log_index: int
    bloom: int


@dataclass(frozen=True, slots=True)
class Block:
    """A block and the state behind it.

    ``state_root`` is the state that later blocks build on. It equals the header's root unless a
    development method (``anvil_setBalance``) has edited the state after the block was made.
    """

    header: Any = field(compare=False, repr=False)
    hash: bytes
    parent_hash: bytes
    number: int
    timestamp: int
    base_fee_per_gas: int
    gas_limit: int
    gas_used: int
    receipts: tuple[Receipt, ...] = field(repr=False)
    state_root: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What is decided about a block before its transactions run."""

    timestamp: int
    base_fee_per_gas: int
    mix_hash: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A message to run without a transaction (``eth_call``, ``eth_estimateGas``)."""

    sender: bytes
    to: bytes
    value: int = 0
    data: bytes = b""
    gas: int | None = None
    gas_price: int = 0


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What a call returned. ``revert_data`` is None when it succeeded."""

    output: bytes
    gas_used: int
    error: str | None = None
    revert_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class PendingSeen:
    """The pool took a transaction (or took it back after a reorg)."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class BlockAdded:
    """A block became the head of the canonical chain."""

    block: Block


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    """A block left the canonical chain: its logs never happened."""

    block: Block


ChainEvent = PendingSeen | BlockAdded | BlockRemoved
