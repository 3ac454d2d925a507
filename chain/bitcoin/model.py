"""What a node of Bitcoin is asked beyond what every chain answers.

Amounts are satoshi, rates satoshi per 1,000 virtual bytes (sat/kvB).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RateSource(StrEnum):
    """Where a fee rate comes from."""

    NODE = "node"
    FALLBACK = "fallback"
    """The node has not seen enough transactions; the configured rate was taken."""


@dataclass(frozen=True, slots=True)
class FeeRate:
    """What to pay per 1,000 virtual bytes: never less than the node relays."""

    rate: int
    source: RateSource


@dataclass(frozen=True, slots=True)
class ScannedCoin:
    """An output that the node has among all that are unspent."""

    tx_id: str
    index: int
    address: str
    amount: int
    height: int


@dataclass(frozen=True, slots=True)
class UnspentScan:
    """All unspent outputs of some addresses as of exactly one block."""

    height: int
    block_hash: str
    coins: tuple[ScannedCoin, ...]


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """Whether a node's pool would take a transaction now, without handing it over.

    Attributes:
        reason: the node's word for why not, empty when it would.
        fee: in satoshi, and *virtual_size*: as the node counts them; 0 when it would not take it.
    """

    accepted: bool
    reason: str = ""
    fee: int = 0
    virtual_size: int = 0
