"""Many small coins become one while blocks are cheap: an own transfer within a wallet.

It is a payout like any other (claim ``own:<wallet>``, its own approvals, its own postings), to a fresh
address of the same wallet. What makes it a consolidation is its reference: it goes alone, and it spends
the smallest coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT, OVERHEAD_WEIGHT, fee_of
from custody.bitcoin.spend_model import INPUTS_MAX, SpentCoin
from custody.payout_model import ClaimKind, Payout

REFERENCE: Final = "consolidation:"
"""How the reference of a consolidation begins."""
COINS_MIN: Final = 10
"""Fewer small coins than these are not worth a transaction."""


def is_consolidation(payout: Payout) -> bool:
    """Tell whether the payout only makes one coin of many."""
    claim = payout.parsed_claim
    within = claim.kind is ClaimKind.OWN and claim.name == payout.source_wallet
    return within and payout.client_ref.startswith(REFERENCE)


def candidates(free: Sequence[SpentCoin], payout: Payout) -> tuple[SpentCoin, ...]:
    """Return the smallest coins that together bring the amount and a fee of half of it at most."""
    smallest = sorted(free, key=lambda coin: (coin.amount, coin.outpoint))[:INPUTS_MAX]
    total = sum(coin.amount for coin in smallest)
    return tuple(smallest) if total > payout.chain_amount else tuple(free)


def plan_amount(free: Sequence[SpentCoin], *, rate: int, below: int) -> int:
    """Return what the small coins would bring as one; 0 where it is not worth it.

    Args:
        free: the coins of the wallet that may be spent.
        rate: sat/kvB that a transaction pays now.
        below: coins of less than so many satoshi are small.
    """
    small = sorted(coin.amount for coin in free if coin.amount < below)[:INPUTS_MAX]
    price = fee_of(KEY_HASH_INPUT_WEIGHT, rate)
    worth = [amount for amount in small if amount > 2 * price]
    if len(worth) < COINS_MIN:
        return 0
    weight = OVERHEAD_WEIGHT + 2 * 4 * 43 + len(worth) * KEY_HASH_INPUT_WEIGHT
    return sum(worth) - 2 * fee_of(weight, rate)
