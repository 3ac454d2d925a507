"""What a second reading of a block adds to the first, or says against it. Pure.

The hash of a block covers what it holds, so two readings of one block can only differ because one of
them was short (a node answers with no events at the head, say), or because one of them lied. What
was missed is included late. What was booked and cannot be found again is for people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chain.model import BlockContents, Movement, TransactionOutcome, WatchList

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
        if _same(movement, now.get(identity)) or not _is_asked(movement, again, watch):
            continue
        return Contradicted(
            f"block {block.height} {block.hash} was read twice and differs: "
            f"{movement.position} of {movement.tx_hash} was included, and is not there any more",
            block.height,
        )
    outcomes = {item.tx_hash: item for item in stored.outcomes}
    found = {item.tx_hash: item for item in again.outcomes}
    for tx_hash, outcome in outcomes.items():
        if _same(outcome, found.get(tx_hash)) or outcome.sender not in watch.addresses:
            continue
        return Contradicted(
            f"block {block.height} {block.hash} was read twice and differs: "
            f"the outcome of {tx_hash} is another one now",
            block.height,
        )
    spends = {(s.spent_tx, s.spent_index): s for s in stored.spends}
    spent = {(s.spent_tx, s.spent_index): s for s in again.spends}
    for outpoint, spend in spends.items():
        if spent.get(outpoint) == spend or spend.address not in watch.addresses:
            continue
        return Contradicted(
            f"block {block.height} {block.hash} was read twice and differs: "
            f"{spend.spent_tx}:{spend.spent_index} was spent, and is not any more",
            block.height,
        )
    return Missed(
        BlockContents(
            block,
            tuple(m for identity, m in now.items() if identity not in before),
            tuple(item for tx_hash, item in found.items() if tx_hash not in outcomes),
            traced=again.traced,
            spends=tuple(item for outpoint, item in spent.items() if outpoint not in spends),
        )
    )


def _same(before: Movement | TransactionOutcome, now: Movement | TransactionOutcome | None) -> bool:
    """Tell whether two readings say the same.

    A transaction of Bitcoin has as many senders as inputs. Which of them is named depends on the
    watch list, which may have grown; its spends are compared one by one.
    """
    if now is None or before.tx_hash.startswith("0x"):
        return before == now
    return replace(now, sender=before.sender) == before


def _is_asked(movement: Movement, again: BlockContents, watch: WatchList) -> bool:
    if movement.position.startswith(TRACE) and not again.traced:
        return False
    if movement.contract is not None and movement.contract not in watch.contracts:
        return False
    return not watch.addresses.isdisjoint((movement.sender, movement.recipient))
