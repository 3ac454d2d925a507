"""Which blocks a node's answers prove to be orphaned. Pure: compares hashes, never heights alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chain.model import Block


@dataclass(frozen=True, slots=True)
class Ancestor:
    """Both branches meet; *orphans* are our blocks above that, from the tip down (maybe none)."""

    orphans: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class DeepReorg:
    """The branches meet deeper than may be undone without people."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotLinked:
    """The answers prove nothing: one is missing, or they are not one chain."""


def linked_prefix(parent: str | None, blocks: Sequence[Block | None]) -> list[Block]:
    """Return the leading blocks of which each names the one before as its parent.

    *parent* is the hash that the first one must name; None when nothing was read before.
    """
    linked: list[Block] = []
    for block in blocks:
        if block is None or (parent is not None and block.parent != parent):
            break
        linked.append(block)
        parent = block.hash
    return linked


def find_ancestor(
    stored: Sequence[Block], theirs: Sequence[Block | None], depth_max: int
) -> Ancestor | DeepReorg | NotLinked:
    """Decide from our blocks and the node's at the same heights, highest first.

    Args:
        stored: our canonical blocks from the cursor down, up to ``depth_max + 1`` of them.
        theirs: what the node has at those heights, up to the first that is equal or missing.
        depth_max: how many blocks may be orphaned.
    """
    answers = [block for block in theirs if block is not None]
    if len(answers) < len(theirs) or not answers:
        return NotLinked()
    if any(upper.parent != lower.hash for upper, lower in pairwise(answers)):
        return NotLinked()
    if answers[-1].hash == stored[len(answers) - 1].hash:
        return Ancestor(tuple(stored[: len(answers) - 1]))
    if len(answers) > depth_max:
        return DeepReorg(f"a reorganisation orphans more than {depth_max} blocks")
    return DeepReorg(
        f"a reorganisation reaches below height {stored[-1].height}, the first block that was read"
    )
