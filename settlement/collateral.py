"""Collateral given and taken: two people, one posting, and an obligation where it has to be moved.

What a client pledges from what it holds here moves in the books at once. Everything else is an
obligation from the moment it is agreed: it is settled in the next cycle by its rail, as one payout
like any other, and counts as security in the books already, beside what is owed for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import get_balances
from registry.authority import signing_bytes
from registry.model import Operator, PartyKind, Role
from registry.queries import get_asset, get_party
from settlement import store, terms_store
from settlement.collateral_model import CollateralMove, Way
from settlement.errors import NotCovered
from settlement.steps import Why, record_obligations
from trading.terms.signing import record_change, require_two

ENTITY: Final = "collateral"
ENTERED_BY: Final = (Role.TREASURER, Role.FINANCE)
REASON_LENGTH_MAX: Final = 500


def collateral_bytes(item: CollateralMove, reason: str) -> bytes:
    """Return what the second operator signs to have security moved."""
    return signing_bytes("settlement.collateral", {**collateral_fields(item), "reason": reason})


def collateral_fields(item: CollateralMove) -> dict[str, object]:
    """Return a movement as plain values, every field of it."""
    return {
        "book": item.book,
        "reference": item.reference,
        "move": str(item.move),
        "way": str(item.way),
        "party": item.party,
        "asset": item.asset,
        "amount": str(item.amount),
        "value_date": item.value_date.isoformat(),
    }


async def move_collateral(
    conn: AsyncConnection,
    item: CollateralMove,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> bool:
    """Move security, and tell whether it was not moved before: the same again is nothing.

    Args:
        conn: the caller's transaction.
        item: what moves.
        by: who enters it: the treasury or finance.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `collateral_bytes`.
        reason: why, for the history.
        now: the time.

    Raises:
        NotCovered: more would go back than is held.
        Refused: the reference is on record with something else, or the people may not.
        BadInput: no reason, or only a client holds something here.
    """
    if not 0 < len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"collateral moves for a reason of 1 to {REASON_LENGTH_MAX} characters")
    await get_asset(conn, item.asset)
    party = await get_party(conn, item.party)
    if item.way is Way.ACCOUNT and party.kind is not PartyKind.CLIENT:
        raise BadInput(
            f"{party.code} is a {party.kind} and holds nothing here",
            remedy="Let it settle: --way settlement",
        )
    payload = collateral_bytes(item, reason)
    people = await require_two(conn, by, approver, payload, signature, entered_by=ENTERED_BY)
    await terms_store.lock_collateral(conn, item.party, item.asset)
    known = await terms_store.find_collateral(conn, item.book, item.reference)
    if known is not None:
        _require_same(item, known)
        return False
    await _require_held(conn, item)
    owed = item.obligation(now)
    if owed is not None:
        new = await store.insert_obligations(conn, item.book, [owed])
        await record_obligations(conn, new, Why(people.first.code, reason, now))
    await terms_store.insert_collateral(
        conn,
        item,
        obligation_id=None if owed is None else owed.id,
        entered_by=people.first.code,
        approved_by=people.second.code,
        reason=reason,
        at=now,
    )
    await _post(conn, item, now)
    details = {**collateral_fields(item), "why": reason}
    await record_change(conn, ENTITY, str(item.id), "CollateralMoved", details, people, now)
    return True


async def _require_held(conn: AsyncConnection, item: CollateralMove) -> None:
    if not item.lowers:
        return
    key = (item.held_at, item.asset)
    balance = (await get_balances(conn, item.book, {key})).get(key)
    held = 0 if balance is None else balance.available
    if held < item.amount:
        raise NotCovered(
            f"{item.held_at} stands at {held} units of {item.asset}, and {item.amount} would go back",
            remedy="Look at what is held: `causeway settle collateral list`",
        )


async def _post(conn: AsyncConnection, item: CollateralMove, now: datetime) -> None:
    debit, credit = item.accounts
    keys = [(debit, item.asset), (credit, item.asset)]
    await ensure_accounts(conn, item.book, keys, now=now)
    moved = transfer(
        item.id,
        debit,
        credit,
        item.amount,
        item.asset,
        code=f"collateral.{item.move}",
        reference=item.reference,
    )
    require_applied(await post(conn, item.book, [moved], now=now))


def _require_same(item: CollateralMove, known: CollateralMove) -> None:
    differs = [
        name
        for name in ("move", "way", "party", "asset", "amount")
        if getattr(item, name) != getattr(known, name)
    ]
    if differs:
        raise Refused(
            f"reference {item.reference!r} was used with another {differs[0]}",
            remedy="Use a new reference for a new movement",
        )
