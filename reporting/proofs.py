"""The proofs, as pure functions over what was read.

Each fault belongs to exactly one proof, so that the name of the proof that failed says where to
look: what the journal's records say among themselves is ``journal-verified``, what balance rows say
about them is ``zero-sum``, what hold rows say is ``holds-itemised``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from kernel.money import Asset
from ledger.model import OpenHold, TrialBalanceRow
from reporting.model import Compared, ExpectedHold, Proof

DIFFERENCES_SHOWN_MAX: Final = 5


def zero_sum(rows: Sequence[TrialBalanceRow], faults: Sequence[str]) -> Proof:
    """Debits equal credits per asset, posted and pending, and balance rows follow their entries."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        sums[row.asset][0] += row.debits - row.credits
        sums[row.asset][1] += row.debits_pending - row.credits_pending
    wrong = [
        f"{asset}: posted off by {posted}, pending by {pending}"
        for asset, (posted, pending) in sorted(sums.items())
        if posted or pending
    ]
    return _proof(
        "zero-sum", wrong + list(faults), f"{len(rows)} accounts in {len(sums)} assets sum to zero"
    )


def journal_verified(faults: Sequence[str], records: int) -> Proof:
    """Every record follows from the one before, and the tree over them has the stored root."""
    return _proof("journal-verified", faults, f"{records} records recomputed, tree root equal")


def holds_itemised(
    holds: Sequence[OpenHold], expected: Iterable[ExpectedHold], faults: Sequence[str]
) -> Proof:
    """Every open hold belongs to a live row of a machine, and the other way round."""
    actual: Counter[tuple[UUID | None, str, str, int]] = Counter(
        (hold.correlation, hold.purpose, hold.asset, hold.amount) for hold in holds
    )
    wanted: Counter[tuple[UUID | None, str, str, int]] = Counter(
        (e.correlation, e.purpose, e.asset, e.amount) for e in expected
    )
    wrong = [
        f"hold without a live row: {purpose} {amount} {asset} of {correlation}"
        for correlation, purpose, asset, amount in (actual - wanted)
    ]
    wrong += [
        f"live row without its hold: {purpose} {amount} {asset} of {correlation}"
        for correlation, purpose, asset, amount in (wanted - actual)
    ]
    by_purpose = Counter(hold.purpose for hold in holds)
    listed = ", ".join(f"{count} {purpose}" for purpose, count in sorted(by_purpose.items()))
    return _proof("holds-itemised", wrong + list(faults), f"open holds: {listed or 'none'}")


def matches_outside(
    name: str,
    rows: Sequence[Compared],
    assets: Mapping[str, Asset],
    what: str,
    *,
    unknown: Sequence[str] = (),
) -> Proof:
    """The books and the outside (a chain at one block, a venue at one snapshot) agree exactly.

    What the outside does not tell (*unknown*, in words) proves nothing: the proof does not hold.
    """
    wrong = list(unknown) + [
        f"{row.place} {assets[row.asset].format(row.difference)} more in the books than outside"
        for row in rows
        if row.difference
    ]
    evidence = ", ".join(sorted({row.evidence for row in rows}))
    return _proof(name, wrong, f"{len(rows)} {what} equal at {evidence}")


def client_money_covered(
    coverage: Mapping[str, tuple[int, int]], assets: Mapping[str, Asset]
) -> Proof:
    """Per asset, holdings of class client are at least what is owed to clients.

    Args:
        coverage: asset to (holdings, liabilities), smallest units.
    """
    wrong = [
        f"{assets[code].format(owed - held)} of clients' money is not covered"
        for code, (held, owed) in sorted(coverage.items())
        if held < owed
    ]
    listed = "; ".join(
        f"{assets[code].format(held, code=False)} held for {assets[code].format(owed)} owed"
        for code, (held, owed) in sorted(coverage.items())
        if held or owed
    )
    return _proof("client-money-covered", wrong, listed or "nothing is owed to clients")


def outbox_drained(undelivered: int) -> Proof:
    """Every event has been delivered."""
    wrong = [f"{undelivered} events are not delivered"] if undelivered else []
    return _proof("outbox-drained", wrong, "every event is delivered")


def _proof(name: str, wrong: Sequence[str], fine: str) -> Proof:
    if not wrong:
        return Proof(name, held=True, detail=fine)
    shown = "; ".join(wrong[:DIFFERENCES_SHOWN_MAX])
    more = len(wrong) - DIFFERENCES_SHOWN_MAX
    return Proof(name, held=False, detail=shown + (f"; and {more} more" if more > 0 else ""))
