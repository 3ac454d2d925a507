"""What an address really received, by its balances: the proof beside the event that claims it.

A token that takes a fee, one that tells what was sent instead of what arrived, a forged event: all
claim something that the balance does not show. Custody credits what arrived, never what was claimed.
"""

from __future__ import annotations

from collections.abc import Iterable

from chain.model import Block, BlockContents, Movement
from chain.ports import ChainGateway


async def balance_delta(
    gateway: ChainGateway, address: str, contract: str | None, *, block: Block
) -> int:
    """Return by how much the balance of *address* changed in exactly this block.

    Raises:
        BlockGone: the node no longer has the block, the one below it, or their states.
    """
    below = Block(block.chain, block.height - 1, block.parent, "", block.time)
    after = await gateway.balance(address, contract, at=block)
    return after - await gateway.balance(address, contract, at=below)


async def received_delta(gateway: ChainGateway, movement: Movement, contents: BlockContents) -> int:
    """Return what *movement* brought its recipient, in smallest units; maybe less than it claims.

    It is the change of the recipient's balance in the block, without what the block's other
    movements of that address and asset explain. Where several of them lie, each one is told the
    whole difference, so none of them is believed.

    Args:
        contents: all that the block holds for our addresses (the recipient is one of them).

    Raises:
        BlockGone: the node no longer has the block, the one below it, or their states.
    """
    delta = await balance_delta(
        gateway, movement.recipient, movement.contract, block=contents.block
    )
    return delta - explained(
        movement.recipient,
        movement.contract,
        (other for other in contents.movements if other != movement),
        contents,
    )


def explained(
    address: str, contract: str | None, movements: Iterable[Movement], contents: BlockContents
) -> int:
    """Return by how much *movements*, and the fees the address paid, change its balance."""
    change = sum(
        move.amount * ((move.recipient == address) - (move.sender == address))
        for move in movements
        if move.contract == contract
    )
    if contract is None:
        change -= sum(item.fee for item in contents.outcomes if item.sender == address)
    return change
