"""Values of the simulated chain: settings, transactions with what is read often, coins, blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from chain.bitcoin.fees import rate_of
from chain.bitcoin.transactions import Outpoint, Output, Transaction, decode, encode
from chain.keys.hashes import double_sha256
from kernel.clock import Clock, SystemClock

DEFAULT_PORT: Final = 18443
"""Where bitcoind listens on regtest."""
COOKIE_USER: Final = "__cookie__"
COINBASE_MATURITY: Final = 100
RELAY_RATE: Final = 1_000
"""Satoshi for 1,000 virtual bytes: the least fee rate, and the step of a replacement."""
DEFAULT_MAX_FEE_RATE: Final = 10_000_000
"""What ``sendrawtransaction`` takes as a fee rate unless it is told otherwise: 0.1 BTC/kvB."""


@dataclass(frozen=True, slots=True)
class BitcoinSimulatorSettings:
    """How one simulator is set up.

    Attributes:
        user, password: what callers show; without a password a cookie file is written, as bitcoind does.
        data_dir: keeps the chain; None: in memory.
        seed: 0 makes the very blocks that bitcoind makes of the same calls; another seed, others.
        timestamp: Unix time of the first block; every block then adds a second, and ``clock`` is
            not asked. The same calls give the same hashes.
        relay_rate, incremental_rate: satoshi for 1,000 virtual bytes.
        fee_rate: what ``estimatesmartfee`` answers; None: that it has too little data.
        flush_blocks: blocks that are written together: a killed node has lost up to one fewer.
        warm_up_s: answers -28 for so long after its start.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    user: str = ""
    password: str = field(default="", repr=False)
    data_dir: Path | None = None
    seed: int = 0
    timestamp: int | None = None
    relay_rate: int = RELAY_RATE
    incremental_rate: int = RELAY_RATE
    fee_rate: int | None = None
    flush_blocks: int = 1
    warm_up_s: float = 0.0
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Packed:
    """A transaction together with what is computed from its bytes, once."""

    body: Transaction
    raw: bytes = field(repr=False)
    tx_id: str
    witness_id: str
    size: int
    stripped: int

    @classmethod
    def of(cls, body: Transaction, raw: bytes | None = None) -> Self:
        """Return a transaction with its ids and sizes."""
        raw = encode(body) if raw is None else raw
        bare = encode(body, witness=False)
        return cls(
            body,
            raw,
            double_sha256(bare)[::-1].hex(),
            double_sha256(raw)[::-1].hex(),
            len(raw),
            len(bare),
        )

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Return the transaction that *raw* is.

        Raises:
            BadTransaction: it is none.
        """
        return cls.of(decode(raw), raw)

    @property
    def weight(self) -> int:
        """Return the weight of BIP 141."""
        return 3 * self.stripped + self.size

    @property
    def virtual_size(self) -> int:
        """Return the size that fees are counted by."""
        return -(-self.weight // 4)

    @property
    def spends(self) -> tuple[Outpoint, ...]:
        """Return what its inputs spend."""
        return tuple(item.outpoint for item in self.body.inputs)

    def outpoint(self, index: int) -> Outpoint:
        """Return one of its outputs by name."""
        return Outpoint(self.tx_id, index)


@dataclass(frozen=True, slots=True)
class Coin:
    """An output with where it was made.

    Attributes:
        height: of its block; one above the tip for an output of the pool.
    """

    output: Output
    height: int
    is_coinbase: bool


@dataclass(frozen=True, slots=True)
class Header:
    """The 80 bytes that are hashed, as fields; hashes as people write them."""

    version: int
    previous: str
    merkle_root: str
    time: int
    bits: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Block:
    """A block with its place in the tree.

    Attributes:
        arrival: counts blocks as they came; of two chains of equal work the earlier one stays.
        median_time: of the last eleven blocks, this one included (BIP 113).
    """

    hash: str
    height: int
    header: Header
    raw: bytes = field(repr=False)
    transactions: tuple[Packed, ...] = field(repr=False)
    arrival: int
    median_time: int

    @property
    def coinbase(self) -> Packed:
        """Return the transaction that pays the miner."""
        return self.transactions[0]


@dataclass(frozen=True, slots=True)
class Change:
    """How the best chain moved: off these blocks (tip first), then onto those (lowest first)."""

    disconnected: tuple[Block, ...] = ()
    connected: tuple[Block, ...] = ()


@dataclass(slots=True)
class Entry:
    """A transaction of the pool.

    Attributes:
        spent: what its inputs spend, in their order.
        parents, children: transactions of the pool that it spends from and that spend from it.
        height: of the tip when it came in.
        is_new: it did not come back from a block.
    """

    packed: Packed
    fee: int
    spent: tuple[Coin, ...]
    time: int
    height: int
    is_new: bool = True
    parents: set[str] = field(default_factory=set)
    children: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Return the virtual size."""
        return self.packed.virtual_size

    @property
    def rate(self) -> int:
        """Return satoshi for 1,000 virtual bytes, rounded down."""
        return rate_of(self.fee, self.size)
