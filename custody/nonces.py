"""Which nonce comes next. Pure.

Nonces are rows, one for each (chain, sending address, nonce), not a counter: a counter that only
goes up leaves gaps behind every failure, and one gap stops everything after it.
"""

from __future__ import annotations

from collections.abc import Mapping

from custody.payout_model import NonceState


def choose_nonce(on_chain_next: int, first: int, rows: Mapping[int, NonceState]) -> int:
    """Return the nonce of the next payment.

    The first that the chain has not mined and no row keeps: so a nonce that was given back is taken
    before a new one, and a node that lags behind cannot make us use one twice.

    Args:
        on_chain_next: how many transactions of the address are mined, as a node says.
        first: the lowest nonce that ever was a row; those below were used before us.
        rows: what became of each nonce that was taken, from *on_chain_next* on.
    """
    nonce = max(on_chain_next, first)
    while rows.get(nonce, NonceState.RELEASED) is not NonceState.RELEASED:
        nonce += 1
    return nonce
