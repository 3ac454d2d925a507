"""Obligations without a deal of ours behind them: of the cut-over, of a file, or entered by hand.

The claims themselves are in the books already (``payable:<party>:open``, ``receivable:<party>:open``,
brought by the same import or by a journal), as those of a deal are when its legs are pulled. So
nothing is posted here, and from here on such an obligation is netted, sealed and discharged as any
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.ids import stable_id
from ledger.queries import get_balances
from registry.model import Role
from registry.people import require_operator
from registry.queries import get_operator, get_party
from settlement import store, terms_store
from settlement.errors import NotCovered
from settlement.import_model import ImportedObligation
from settlement.model import IMPORTED_LEG, Direction, Obligation
from settlement.runs import DIRECTIONS
from settlement.steps import Why, record_obligations
from trading.legs import list_untaken_legs

PART: Final = 1_000
"""Obligations written in one statement."""

CLAIMS: Final = {Direction.PAY: "payable:{}:open", Direction.RECEIVE: "receivable:{}:open"}


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
        Refused: a key is on record with another party, asset, direction or amount.
        BadInput: an amount that is not above zero.
    """
    operator = await require_operator(
        conn, await get_operator(conn, by), Role.FINANCE, Role.TREASURER
    )
    for party in sorted({row.party for row in rows}):
        await get_party(conn, party)
    obligations = [_obligation(row, book, now) for row in rows]
    await terms_store.lock_claims(conn, book)
    new: list[Obligation] = []
    for start in range(0, len(obligations), PART):
        part = obligations[start : start + PART]
        new += await store.insert_obligations(conn, book, part)
    await _require_same(conn, obligations, new)
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
        product=row.product,
    )


async def _require_same(
    conn: AsyncConnection, asked: Sequence[Obligation], new: Sequence[Obligation]
) -> None:
    """Refuse a key that is known with something else; a value date may have been put off since."""
    fresh = {item.id for item in new}
    again = {item.id: item for item in asked if item.id not in fresh}
    for known in await terms_store.list_owed(conn, list(again)):
        item = again[known.id]
        if known != terms_store.Owed(item.id, item.party, item.asset, item.direction, item.amount):
            raise Refused(
                f"obligation {known.id} is on record: {known.party} is to {known.direction}"
                f" {known.amount} units of {known.asset}, not {item.amount} of {item.asset}",
                remedy="Give another obligation a reference of its own",
            )


async def _require_claims(conn: AsyncConnection, book: int, new: Sequence[Obligation]) -> None:
    touched = {(o.party, o.asset, o.direction) for o in new}
    parties = {o.party for o in new}
    keys = {key: (CLAIMS[key[2]].format(key[0]), key[1]) for key in touched}
    # In this order: a deal that is booked, or taken over, meanwhile is counted as owed, not as a claim.
    balances = await get_balances(conn, book, set(keys.values()))
    untaken = Counter[tuple[str, str, Direction]]()
    for leg in await list_untaken_legs(conn, book=book, parties=parties):
        untaken[leg.party, leg.asset, DIRECTIONS[leg.direction]] += leg.amount
    sums = await store.sum_unsealed(conn, book, parties)
    for party, asset, direction in sorted(touched):
        path, _ = key = keys[party, asset, direction]
        owed = balances[key].posted if key in balances else 0
        total = sums[party, asset, direction] + untaken[party, asset, direction]
        if total > owed:
            raise NotCovered(
                f"{path} stands at {owed} units of {asset}, its obligations come to {total}",
                remedy="Bring the claim into the books first: by a journal, or with the opening balances",
            )
