"""How a long way is cut into runs of blocks, and a run into transactions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from chain.model import BlockContents

RUN_FIRST: Final = 128
"""Blocks of the first run, before anything is known of the node's speed."""
RUN_MAX: Final = 1_024
SLOW_S: Final = 8.0
"""A run that takes longer is too long: a lost answer would cost too much to ask for again."""
FAST_S: Final = 2.0


def next_length(length: int, seconds: float) -> int:
    """Return how long the next run is after one of *length* blocks took *seconds* to read."""
    if seconds > SLOW_S:
        return shorter(length)
    return min(RUN_MAX, 2 * length) if seconds < FAST_S else length


def shorter(length: int) -> int:
    """Return the next smaller length; never less than one block."""
    return max(1, length // 2)


def holds_something(contents: BlockContents) -> bool:
    """Tell whether anything follows from the block."""
    return bool(contents.movements or contents.outcomes or contents.spends)


def transactions(run: Sequence[BlockContents]) -> Iterator[list[BlockContents]]:
    """Yield the pieces of *run* that are written together: at most the last block holds something.

    Two blocks that are posted for never share a transaction, because the second one's rows would be
    waited for after the first one's postings.
    """
    piece: list[BlockContents] = []
    for contents in run:
        piece.append(contents)
        if holds_something(contents):
            yield piece
            piece = []
    if piece:
        yield piece
