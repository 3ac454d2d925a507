"""Which nonce comes next. Pure.

Nonces are rows, one for each (chain, sending address, nonce), not a counter: a counter that only
goes up leaves gaps behind every failure, and one gap stops everything after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from custody.payout_model import Nonce, NonceState


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


@dataclass(frozen=True, slots=True)
class Alarm:
    """The line of a sending address does not move: everything behind *nonce* waits for it."""

    chain: str
    sender: str
    nonce: int
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """The open nonces of a sending address.

    Attributes:
        head: the lowest that a payment keeps; None when none does.
        gaps: those given back that a payment waits behind, lowest first.
    """

    head: Nonce | None
    gaps: tuple[Nonce, ...]


def read_line(rows: Collection[Nonce]) -> Line:
    """Return the line that the open nonces of one sending address form."""
    live = [row for row in rows if row.state is NonceState.LIVE]
    if not live:
        return Line(None, ())
    last = max(row.nonce for row in live)
    gaps = (row for row in rows if row.state is NonceState.RELEASED and row.nonce < last)
    return Line(
        min(live, key=lambda row: row.nonce), tuple(sorted(gaps, key=lambda row: row.nonce))
    )
