"""What an address really received, by its balances: the proof beside the event that claims it.

A token that takes a fee, one that tells what was sent instead of what arrived, a forged event: all
claim something that the balance does not show. Custody credits what arrived, never what was claimed.
"""

from __future__ import annotations

from collections.abc import Sequence

from chain.model import Block, WatchList
from chain.ports import ChainGateway


async def balance_delta(
    gateway: ChainGateway, address: str, contract: str | None, *, block: Block
) -> int:
    """Return by how much the balance of *address* changed in exactly this block.

    The block below is known by its hash alone, so nobody has to have read it before.

    Raises:
        BlockGone: the node no longer has the block, the one below it, or their states.
        TokenUnreadable: the contract does not tell.
    """
    below = Block(block.chain, block.height - 1, block.parent, "", block.time)
    after = await gateway.balance(address, contract, at=block)
    return after - await gateway.balance(address, contract, at=below)


async def received(
    gateway: ChainGateway,
    address: str,
    contract: str | None,
    claims: Sequence[int],
    *,
    block: Block,
) -> list[int]:
    """Return how much of each of *claims* really arrived at *address* in this block.

    Args:
        claims: all that the block says it received of *contract* (None: the native coin), in order,
            in the chain's smallest units.

    Raises:
        BlockGone, TokenUnreadable: as `balance_delta`.
    """
    delta = await balance_delta(gateway, address, contract, block=block)
    if delta != sum(claims):
        # Something may have left the address in the same block: a sweep, or gas paid from it.
        delta += await _left(gateway, address, contract, block)
    return share(claims, delta)


def share(claims: Sequence[int], arrived: int) -> list[int]:
    """Return how much of each claim really arrived, the first one first; pure.

    More than all of them is not theirs: it came without a log, and reconciliation names it.
    """
    left, shares = max(0, arrived), []
    for claim in claims:
        shares.append(min(claim, left))
        left -= shares[-1]
    return shares


async def _left(gateway: ChainGateway, address: str, contract: str | None, block: Block) -> int:
    """Return what the block says that the address gave away, and the fees that it paid."""
    contracts = frozenset() if contract is None else frozenset({contract})
    contents = await gateway.contents(block, WatchList(frozenset({address}), contracts))
    gone = sum(
        move.amount
        for move in contents.movements
        if move.sender == address and move.contract == contract
    )
    if contract is None:
        gone += sum(item.fee for item in contents.outcomes if item.sender == address)
    return gone
