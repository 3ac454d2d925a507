"""Trades that no venue tells: entered by one person, approved by another, then like any other.

A hedge that was dealt by telephone with a liquidity provider's own venue, or a trade of an account
whose keys are lost. It goes into the same table as what venues report, under the same key of venue,
account, symbol and trade: whichever way a trade comes, and however often, it counts once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator
from trading.errors import HandFillRefused, NoHedgeLine
from trading.hedges import store
from trading.hedges.fills import post_fills_of
from trading.hedges.model import HAND_FILL_STATES, HandFill, HandFillState
from venues.fills import record_fills
from venues.model import VenueFill

ENTITY: Final = "hand-fill"
SOURCE: Final = "hand"
EVIDENCE_LENGTH_MAX: Final = 500
LISTED_MAX: Final = 500
PROPOSERS: Final = (Role.DEALER, Role.TREASURER)
DECIDERS: Final = (Role.APPROVER, Role.FINANCE, Role.TREASURER)


def hand_fill_bytes(item: HandFill, verb: str) -> bytes:
    """Return what the second person signs: *verb* is ``approve`` or ``reject``."""
    fill = item.fill
    return signing_bytes(
        f"hand-fill.{verb}",
        {
            "id": item.id,
            "book": item.book,
            "venue": fill.venue,
            "account": fill.account,
            "symbol": fill.symbol,
            "trade_id": fill.trade_id,
            "venue_order_id": fill.venue_order_id,
            "side": fill.side.value,
            "price": fill.price,
            "base": fill.base,
            "base_units": fill.base_units,
            "quote": fill.quote,
            "quote_units": fill.quote_units,
            "fee_asset": fill.fee_asset,
            "fee_units": fill.fee_units,
            "executed_at": fill.executed_at,
            "evidence": item.evidence,
            "proposed_by": item.proposed_by,
        },
    )


async def propose_hand_fill(
    conn: AsyncConnection, fill: VenueFill, *, book: int, evidence: str, by: str, now: datetime
) -> HandFill:
    """Enter a trade; nothing is posted before another person approves it. The same again: once.

    Raises:
        NoHedgeLine: no line has the place, so nobody's position would change.
        HandFillRefused: the trade was entered before with other content.
        BadInput: it is of another asset than the line, in the future, or there is no evidence.
        NotAuthorised: the operator may not.
    """
    operator = await get_operator(conn, by)
    require_role(operator, *PROPOSERS)
    await _require_sound(conn, fill, evidence, now)
    item = HandFill(
        id=derive_id(now, ENTITY, fill.venue, fill.account, fill.symbol, fill.trade_id),
        book=book,
        fill=fill,
        evidence=evidence,
        state=HandFillState.PROPOSED,
        proposed_by=operator.code,
        decided_by=None,
        decided_at=None,
        created_at=now,
    )
    if await store.insert_hand_fill(conn, item):
        await _tell(conn, item, None, "HandFillProposed", by=by, reason=evidence, now=now)
        return item
    known = await store.find_hand_fill(conn, fill.venue, fill.account, fill.symbol, fill.trade_id)
    assert known is not None, "an insert that met nothing inserts"
    if (known.fill, known.book) != (fill, book):
        raise HandFillRefused(
            f"trade {fill.trade_id} of {fill.symbol} was entered with other content",
            remedy=f"It is fill {known.id}, entered by {known.proposed_by}",
        )
    return known


async def approve_hand_fill(
    conn: AsyncConnection, fill_id: UUID, *, by: str, signature: bytes, now: datetime
) -> HandFill:
    """Approve a trade: it is recorded and posted as the venue's own would be, in this transaction.

    One that the venue has told meanwhile is on record already, and counts once.

    Args:
        signature: Ed25519, over `hand_fill_bytes` with ``approve``.

    Raises:
        NoHandFill: there is none.
        HandFillRefused: it is decided, or by the same person.
        NotAuthorised: the operator may not, or did not sign exactly this.
    """
    seen = await store.get_hand_fill(conn, fill_id)
    found = await store.line_of_place(conn, seen.fill.venue, seen.fill.account, seen.fill.symbol)
    assert found is not None, "a place stays with its line for ever"
    line = await store.lock_line(conn, *found)
    after = await _decided(conn, fill_id, HandFillState.APPROVED, by, signature, now)
    await _tell(conn, after, seen.state, "HandFillApproved", by=by, reason=after.evidence, now=now)
    await record_fills(conn, [after.fill], source=SOURCE, now=now)
    await post_fills_of(conn, line, book=after.book, now=now)
    return after


async def reject_hand_fill(
    conn: AsyncConnection, fill_id: UUID, *, by: str, signature: bytes, reason: str, now: datetime
) -> HandFill:
    """Reject a trade: it never counts.

    Args:
        signature: Ed25519, over `hand_fill_bytes` with ``reject``.

    Raises:
        NoHandFill, HandFillRefused, NotAuthorised: as `approve_hand_fill`.
    """
    seen = await store.get_hand_fill(conn, fill_id)
    after = await _decided(conn, fill_id, HandFillState.REJECTED, by, signature, now)
    await _tell(conn, after, seen.state, "HandFillRejected", by=by, reason=reason, now=now)
    return after


async def get_hand_fill(conn: AsyncConnection, fill_id: UUID) -> HandFill:
    """Return a fill that was entered by hand.

    Raises:
        NoHandFill: there is none.
    """
    return await store.get_hand_fill(conn, fill_id)


async def list_hand_fills(
    conn: AsyncConnection, *, states: Collection[HandFillState] = tuple(HandFillState)
) -> list[HandFill]:
    """Return fills that were entered by hand, newest first, at most `LISTED_MAX`."""
    return await store.list_hand_fills(conn, states, LISTED_MAX)


async def _require_sound(
    conn: AsyncConnection, fill: VenueFill, evidence: str, now: datetime
) -> None:
    found = await store.line_of_place(conn, fill.venue, fill.account, fill.symbol)
    if found is None:
        raise NoHedgeLine(
            f"no line hedges with {fill.symbol} at {fill.venue}/{fill.account}",
            remedy="Run `causeway venues line place`",
        )
    line = await store.get_line(conn, *found)
    if fill.base != line.asset or (line.quote is not None and fill.quote != line.quote):
        wanted = f"{line.asset}/{line.quote or 'any'}"
        raise BadInput(f"a trade of {fill.base}/{fill.quote} is none of {wanted}")
    if fill.base_units <= 0 or fill.quote_units < 0 or not fill.trade_id:
        raise BadInput("a trade has an amount and an id of its own")
    if fill.executed_at > now:
        raise BadInput(f"a trade of {iso(fill.executed_at)} is in the future")
    if not 0 < len(evidence.strip()) <= EVIDENCE_LENGTH_MAX:
        raise BadInput(f"say what shows the trade, in 1 to {EVIDENCE_LENGTH_MAX} characters")


async def _decided(
    conn: AsyncConnection,
    fill_id: UUID,
    state: HandFillState,
    by: str,
    signature: bytes,
    now: datetime,
) -> HandFill:
    item = await store.get_hand_fill(conn, fill_id, lock=True)
    verb = "approve" if state is HandFillState.APPROVED else "reject"
    await _require_second(conn, item, by, hand_fill_bytes(item, verb), signature)
    if item.state is state or not HAND_FILL_STATES.allows(item.state, state):
        raise HandFillRefused(f"fill {item.id} is {item.state}")
    after = replace(item, state=state, decided_by=by, decided_at=now)
    await store.update_hand_fill(conn, after, signature=signature, now=now)
    return after


async def _require_second(
    conn: AsyncConnection, item: HandFill, by: str, payload: bytes, signature: bytes
) -> Operator:
    operator, proposer = await get_operator(conn, by), await get_operator(conn, item.proposed_by)
    require_role(operator, *DECIDERS)
    if operator.code == proposer.code or operator.public_key == proposer.public_key:
        raise HandFillRefused(
            f"{operator.code} cannot decide what {proposer.code} entered",
            remedy="Ask another operator",
        )
    verify_signature(operator, payload, signature)
    return operator


async def _tell(
    conn: AsyncConnection,
    item: HandFill,
    before: HandFillState | None,
    name: str,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    fill = item.fill
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before),
        to_state=str(item.state),
        payload={
            "venue": fill.venue,
            "account": fill.account,
            "symbol": fill.symbol,
            "trade_id": fill.trade_id,
            "side": fill.side.value,
            "base": fill.base,
            "base_units": str(fill.base_units),
            "quote": fill.quote,
            "quote_units": str(fill.quote_units),
        },
    )
    await record(conn, [event])
