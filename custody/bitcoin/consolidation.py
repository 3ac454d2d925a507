"""Many small coins become one while blocks are cheap: an own transfer within a wallet.

It is a payout like any other (claim ``own:<wallet>``, its own approvals, its own postings), to a fresh
address of the same wallet. What makes it a consolidation is its reference: it goes alone, and it spends
the smallest coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT, OVERHEAD_WEIGHT, fee_of
from custody.addresses import assign_address
from custody.bitcoin.spend_model import INPUTS_MAX, SpentCoin
from custody.bitcoin.spend_plan import Market, SpendPolicy
from custody.bitcoin.spend_steps import list_free_coins
from custody.model import AddressPurpose
from custody.payout_model import ClaimKind, Payout, PayoutRequest
from custody.payout_requests import request_payout
from custody.payout_store import find_payouts_by_reference
from registry.queries import get_chain, get_wallet

REFERENCE: Final = "consolidation:"
"""How the reference of a consolidation begins."""
COINS_MIN: Final = 10
"""Fewer small coins than these are not worth a transaction."""


async def request_consolidation(
    conn: AsyncConnection,
    wallet: str,
    *,
    market: Market,
    policy: SpendPolicy,
    below: int,
    requested_by: str,
    book: int,
    now: datetime,
) -> Payout | None:
    """Ask for one coin in place of many small ones, once a day and wallet, if blocks are cheap now.

    Cheap is half of what spending a coin is expected to cost one day, or less.

    Args:
        conn: the caller's transaction.
        wallet: code of the wallet.
        market: what the node says of prices.
        policy: what is expected of later prices.
        below: coins of less than so many satoshi are small.
        requested_by: operator, or service, who can then not approve it.
        book: the book.
        now: the time.

    Returns:
        The payout, which others approve like any other; None where it is not worth it.
    """
    if 2 * market.asked > policy.later_rate:
        return None
    chain = await get_chain(conn, (await get_wallet(conn, wallet)).chain)
    free = await list_free_coins(conn, chain.code, wallet)
    amount = plan_amount(free, rate=market.asked, below=below)
    if amount <= 0:
        return None
    reference = f"{REFERENCE}{wallet}:{now.date().isoformat()}"
    to = await assign_address(
        conn, wallet, purpose=AddressPurpose.CHANGE, reference=reference, now=now
    )
    known = await find_payouts_by_reference(conn, book, [(f"own:{wallet}", reference)])
    if known:
        return known[0]
    request = PayoutRequest(
        client_ref=reference,
        claim=f"{ClaimKind.OWN}:{wallet}",
        source_wallet=wallet,
        asset=chain.native_asset,
        amount=amount,
        destination=to.address,
        requested_by=requested_by,
        reason=f"one coin in place of many small ones, at {market.asked} sat/kvB",
    )
    return await request_payout(conn, request, book=book, now=now)


def is_consolidation(payout: Payout) -> bool:
    """Tell whether the payout only makes one coin of many."""
    claim = payout.parsed_claim
    within = claim.kind is ClaimKind.OWN and claim.name == payout.source_wallet
    return within and payout.client_ref.startswith(REFERENCE)


def candidates(free: Sequence[SpentCoin], payout: Payout) -> tuple[SpentCoin, ...]:
    """Return the smallest coins that hold more than the amount: what they hold beyond it is the fee.

    Where fees have risen since it was asked for, that is not enough, and it waits for cheaper blocks.
    """
    smallest = sorted(free, key=lambda coin: (coin.amount, coin.outpoint))[:INPUTS_MAX]
    held = 0
    for count, coin in enumerate(smallest, start=1):
        held += coin.amount
        if held > payout.chain_amount:
            return tuple(smallest[:count])
    return tuple(smallest)


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
