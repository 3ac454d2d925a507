"""Which of a few amounts add up to a sum, if only one choice of them does. Pure, exact."""

from __future__ import annotations

from collections.abc import Sequence

from settlement.matching.model import SUBSET_MAX


def sums(amounts: Sequence[int]) -> dict[int, int]:
    """Return every sum of two or more of *amounts*, with the mask of the one choice that makes it.

    A sum that more than one choice makes has the mask 0: it proves nothing. Bit *n* of a mask stands for
    the *n*-th amount. More than `SUBSET_MAX` amounts are not searched: the answer is empty.
    """
    if len(amounts) > SUBSET_MAX:
        return {}
    totals = [0] * (1 << len(amounts))
    found: dict[int, int] = {}
    for mask in range(1, len(totals)):
        lowest = mask & -mask
        rest = mask ^ lowest
        total = totals[rest] + amounts[lowest.bit_length() - 1]
        totals[mask] = total
        if rest:
            found[total] = 0 if total in found else mask
    for amount in amounts:
        # The amount by itself is a choice too.
        if amount in found:
            found[amount] = 0
    return found


def chosen(mask: int) -> list[int]:
    """Return the positions that a mask stands for, in order."""
    return [place for place in range(mask.bit_length()) if mask >> place & 1]
