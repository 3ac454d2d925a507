"""Many small coins become one while blocks are cheap: an own transfer within a wallet. Pure.

A rule of rebalancing asks for it (`custody.rebalance`). It is a payout like any other (claim
``own:<wallet>``, its own approvals, its own postings), to a fresh address of the same wallet. What makes
it a consolidation is its reference: it goes alone, and it spends the smallest coins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chain.bitcoin.fees import OVERHEAD_WEIGHT, fee_of
from custody.bitcoin.spend_model import SpentCoin
from custody.payout_model import ClaimKind, Payout

REFERENCE: Final = "consolidation:"
"""How the reference of a consolidation begins."""
OUTPUT_WEIGHT: Final = 4 * 43
"""An output that pays to the hash of a script; others are lighter."""


def is_consolidation(payout: Payout) -> bool:
    """Tell whether the payout only makes one coin of many."""
    claim = payout.parsed_claim
    within = claim.kind is ClaimKind.OWN and claim.name == payout.source_wallet
    return within and payout.client_ref.startswith(REFERENCE)


def candidates(
    free: Sequence[SpentCoin], payout: Payout, *, rate: int, below: int, inputs_max: int
) -> tuple[SpentCoin, ...]:
    """Return the smallest coins that bring the amount and pay for themselves at *rate*.

    A coin that costs more than half of what it holds is left where it is, and so is a large one: where
    fees have risen since it was asked for, the small ones are not enough, and it waits for cheaper
    blocks.
    """
    worth = [c for c in free if c.amount < below and is_worth(c.amount, c.weight, rate)]
    smallest = sorted(worth, key=lambda coin: (coin.amount, coin.outpoint))[:inputs_max]
    held, weight = 0, OVERHEAD_WEIGHT + 2 * OUTPUT_WEIGHT
    for count, coin in enumerate(smallest, start=1):
        held, weight = held + coin.amount, weight + coin.weight
        if held - fee_of(weight, rate) >= payout.chain_amount:
            return tuple(smallest[:count])
    return tuple(smallest)


def plan_amount(
    amounts: Iterable[int], *, weight: int, rate: int, below: int, coins_min: int, inputs_max: int
) -> int:
    """Return what the small coins would bring as one; 0 where it is not worth it.

    Twice the present fee stays out of it: so much may fees rise until it is approved.

    Args:
        amounts: of the coins of the wallet that may be spent.
        weight: of an input that spends one.
        rate: sat/kvB that a transaction pays now.
        below: coins of less than so many satoshi are small.
        coins_min: fewer are not worth it.
        inputs_max: more are not taken, the smallest first.
    """
    small = (amount for amount in amounts if amount < below and is_worth(amount, weight, rate))
    taken = sorted(small)[:inputs_max]
    if len(taken) < coins_min:
        return 0
    whole = OVERHEAD_WEIGHT + 2 * OUTPUT_WEIGHT + len(taken) * weight
    return max(0, sum(taken) - 2 * fee_of(whole, rate))


def is_worth(amount: int, weight: int, rate: int) -> bool:
    """Tell whether a coin holds more than twice what spending it costs."""
    return amount > 2 * fee_of(weight, rate)
