"""What waits in a node's pool for our addresses, read from transactions not yet mined. Pure.

Shown, never believed: the sender may replace it at any time. Native value and plain calls of a
registered contract's ``transfer`` are understood; whatever else pays us is seen when it is mined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from chain.errors import BadTransaction
from chain.evm.erc20 import decode_erc20_transfer
from chain.evm.parse import parse_transaction
from chain.evm.quantities import as_bytes, get
from chain.model import PendingMovement, WatchList
from chain.shapes import as_object

POOL_MAX: Final = 5_000
"""Transactions of a pool looked at, at most. A larger pool is not asked for."""
PENDING_MAX: Final = 1_000
"""Pending movements shown, at most."""


def pool_transactions(answer: object) -> Iterator[Any]:
    """Yield the transactions of a ``txpool_content`` answer: those whose turn it is first."""
    body = as_object(answer, "the pool")
    for part in ("pending", "queued"):
        for by_nonce in as_object(body.get(part, {}), part).values():
            yield from as_object(by_nonce, "a sender's transactions").values()


def pending_of(items: Iterable[object], watch: WatchList) -> tuple[PendingMovement, ...]:
    """Return what *items*, transaction objects of a node, would move to watched addresses.

    Each transaction counts once, and at most `PENDING_MAX` movements are returned.
    """
    found: dict[str, PendingMovement] = {}
    for place, item in enumerate(items):
        if place >= POOL_MAX or len(found) >= PENDING_MAX:
            break
        movement = _movement(item, watch)
        if movement is not None:
            found[movement.tx_hash] = movement
    return tuple(found.values())


def _movement(item: object, watch: WatchList) -> PendingMovement | None:
    transaction = parse_transaction(item)
    to = transaction.recipient
    if to in watch.addresses and transaction.value:
        return PendingMovement(
            transaction.tx_hash, transaction.sender, transaction.nonce, to, None, transaction.value
        )
    if to not in watch.contracts:
        return None
    body = as_object(item, "the transaction")
    try:
        call = decode_erc20_transfer(as_bytes(get(body, "input"), "input"))
    except BadTransaction:
        return None
    if call.recipient not in watch.addresses:
        return None
    return PendingMovement(
        transaction.tx_hash,
        transaction.sender,
        transaction.nonce,
        call.recipient,
        to,
        call.amount,
    )
