"""What a second reading of a block adds to the first, or says against it. Pure.

The hash of a block covers what it holds, so two readings of one block can only differ because one of
them was short (a node answers with no events at the head, say), or because one of them lied. What
was missed is included late. What was booked and cannot be found again is for people.
"""

from __future__ import annotations

from dataclasses import dataclass

from chain.model import BlockContents, Movement, WatchList

TRACE: str = "trace:"


@dataclass(frozen=True, slots=True)
class Missed:
    """What the first reading did not have; empty when both are the same."""

    contents: BlockContents


@dataclass(frozen=True, slots=True)
class Contradicted:
    """What was booked is not in the block by the second reading."""

    reason: str
    height: int


def compare(stored: BlockContents, again: BlockContents, watch: WatchList) -> Missed | Contradicted:
    """Compare what is stored of a block with what a second reading found.

    *watch* is the list of the second reading: what it leaves out cannot be missed.
    """
    block = stored.block
    before = {(m.tx_hash, m.position): m for m in stored.movements}
    now = {(m.tx_hash, m.position): m for m in again.movements}
    for identity, movement in before.items():
        if now.get(identity) == movement or not _is_asked(movement, again, watch):
            continue
        return Contradicted(
            f"block {block.height} {block.hash} was read twice and differs: "
            f"{movement.position} of {movement.tx_hash} was included, and is not there any more",
            block.height,
        )
    outcomes = {item.tx_hash: item for item in stored.outcomes}
    found = {item.tx_hash: item for item in again.outcomes}
    for tx_hash, outcome in outcomes.items():
        if found.get(tx_hash) != outcome and outcome.sender in watch.addresses:
            return Contradicted(
                f"block {block.height} {block.hash} was read twice and differs: "
                f"the outcome of {tx_hash} is another one now",
                block.height,
            )
    return Missed(
        BlockContents(
            block,
            tuple(m for identity, m in now.items() if identity not in before),
            tuple(item for tx_hash, item in found.items() if tx_hash not in outcomes),
            traced=again.traced,
        )
    )


def _is_asked(movement: Movement, again: BlockContents, watch: WatchList) -> bool:
    if movement.position.startswith(TRACE) and not again.traced:
        return False
    if movement.contract is not None and movement.contract not in watch.contracts:
        return False
    return not watch.addresses.isdisjoint((movement.sender, movement.recipient))
