"""Obligations that come with the cut-over: owed before there was a deal of ours behind them.

The claims themselves are in the books already (``payable:<party>:open``, ``receivable:<party>:open``,
brought by the same import), as those of a deal are when its legs are pulled. So nothing is posted
here, and from here on such an obligation is netted, sealed and discharged as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.ids import stable_id
from ledger.queries import get_balance
from registry.model import Role
from registry.queries import get_operator, get_party
from settlement import store
from settlement.errors import NotCovered
from settlement.model import IMPORTED_LEG, Direction, Obligation
from settlement.people import require_operator
from settlement.steps import Why, record_obligations

PART: Final = 1_000
"""Obligations written in one statement."""

CLAIMS: Final = {Direction.PAY: "payable:{}:open", Direction.RECEIVE: "receivable:{}:open"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedObligation:
    """What is owed: *amount* in smallest units; *key* is its identity for ever (file and line)."""

    key: str
    party: str
    direction: Direction
    asset: str
    amount: int
    value_date: date


async def import_obligations(
    conn: AsyncConnection,
    rows: Sequence[ImportedObligation],
    *,
    book: int,
    by: str,
    reason: str,
    now: datetime,
) -> list[Obligation]:
    """Enter obligations, each once by its key, and return what is new.

    Args:
        conn: the caller's transaction.
        rows: what is owed.
        book: in which book the claims are.
        by: code of the operator who imports, of finance or the treasury.
        reason: why, for the history.
        now: the time of the import.

    Raises:
        NotAuthorised: the operator may not.
        UnknownRecord: a party is not registered.
        NotCovered: more is owed than the open claims of the books come to.
        BadInput: an amount that is not above zero.
    """
    operator = await require_operator(
        conn, await get_operator(conn, by), Role.FINANCE, Role.TREASURER
    )
    for party in sorted({row.party for row in rows}):
        await get_party(conn, party)
    obligations = [_obligation(row, book, now) for row in rows]
    new: list[Obligation] = []
    for start in range(0, len(obligations), PART):
        part = obligations[start : start + PART]
        new += await store.insert_obligations(conn, book, part)
    await _require_claims(conn, book, new)
    await record_obligations(conn, new, Why(operator.code, reason, now))
    return new


def _obligation(row: ImportedObligation, book: int, now: datetime) -> Obligation:
    if row.amount <= 0:
        raise BadInput(f"an obligation is of more than nothing, not of {row.amount}", where=row.key)
    return Obligation(
        id=stable_id("imported-obligation", book, row.key),
        # Nothing else ever has this id: it stands where a deal's would.
        deal_id=stable_id("imported-deal", book, row.key),
        leg=IMPORTED_LEG,
        party=row.party,
        asset=row.asset,
        amount=row.amount,
        direction=row.direction,
        value_date=row.value_date,
        created_at=now,
    )


async def _require_claims(conn: AsyncConnection, book: int, new: Sequence[Obligation]) -> None:
    touched = {(o.party, o.asset, o.direction) for o in new}
    sums = await store.sum_unsealed(conn, book, {o.party for o in new})
    for party, asset, direction in sorted(touched):
        path = CLAIMS[direction].format(party)
        owed = (await get_balance(conn, book, path, asset)).posted
        total = sums[party, asset, direction]
        if total > owed:
            raise NotCovered(
                f"{path} stands at {owed} units of {asset}, its obligations come to {total}",
                remedy="Import the opening balance of the claim first",
            )
