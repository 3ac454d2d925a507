"""The end of a restore: items are settled and the doors opened, each by two people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.control_messages import ControlKind, message_of
from custody.errors import NotPossible
from custody.freezes import MAY_OPEN
from custody.payout_replace import require_people
from custody.restore import store
from custody.restore.finding import ENTITY
from custody.restore.model import (
    REASON_LENGTH_MAX,
    RESTORE_STATES,
    Item,
    ItemState,
    Restore,
    RestoreState,
    opening_body,
    opening_bytes,
    settling_bytes,
)
from custody.restore.progress import list_missing, note_sent
from custody.signer_sync import queue_control
from custody.venues.forgotten import name_forgotten
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from registry.authority import signatures_document
from venues.account_state import release
from venues.errors import AccountNotClear
from venues.restored import list_halted

OPENED: Final = "RestoreOpened"


async def settle(
    conn: AsyncConnection,
    source: str,
    key: str,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    reference: str = "",
    now: datetime,
) -> Item:
    """Let two people say how they have dealt with what could not be taken in.

    Args:
        signatures: Ed25519 over `settling_bytes` of the item, by operator code.
        reason: what they did: a manual journal, a `payout.dead`, a payment called back.
        reference: under which a withdrawal was asked for, where the venue lists no id of ours: it is
            refused from then on. Where nobody says it, what is like the withdrawal is refused.

    Raises:
        NotPossible: no restore stands, the item needs nobody, or it names its own reference.
        Refused: not two different people, one may not, or a signature is not theirs or not of this.
    """
    _require_reason(reason)
    standing = await store.require_standing(conn, lock=True)
    item = await store.get_item(conn, standing.id, source, key)
    if item.state is not ItemState.UNRESOLVED:
        raise NotPossible(f"{key} of {source} is {item.state}")
    await require_people(conn, signatures, settling_bytes(item, reason, reference), MAY_OPEN)
    if reference:
        await name_forgotten(conn, standing.id, source, key, reference)
    signed = signatures_document(signatures)
    await store.settle_item(conn, item, signed, reason, now)
    await note_sent(conn, standing.id, now=now)
    return replace(item, state=ItemState.SETTLED, reason=reason)


async def open_restore(
    conn: AsyncConnection,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Restore:
    """Open every door again: two people sign `opening_bytes` of the restore as it stands.

    The signer is handed the same message; until it has taken it, it signs nothing.

    Raises:
        NotPossible: no restore stands, a place is not read to its end, or an item is unresolved.
        Refused: not two different people, one may not, or a signature is not theirs or not of this.
    """
    _require_reason(reason)
    standing = await store.require_standing(conn, lock=True)
    missing = await list_missing(conn, standing.id)
    if missing:
        raise NotPossible(
            f"the doors stay shut: {missing[0]}",
            where=f"restore {standing.id}",
            remedy=f"{len(missing)} things are missing: see `causeway restore status`",
        )
    await require_people(conn, signatures, opening_bytes(standing, reason), MAY_OPEN)
    RESTORE_STATES.require(standing.state, RestoreState.OPEN)
    signed = signatures_document(signatures)
    values = {
        "state": RestoreState.OPEN,
        "opened_by": signed,
        "opened_reason": reason,
        "opened_at": now,
    }
    await store.update_restore(conn, standing.id, **values)
    if standing.signer:
        body = opening_body(standing, reason)
        message = message_of(ControlKind.RESTORE_OPEN, body, signatures)
        await queue_control(conn, message, now=now)
    people = " and ".join(signed)
    for venue, account in await list_halted(conn):
        try:
            await release(conn, venue, account, reason=reason, operator=people, now=now)
        except AccountNotClear:
            continue  # it stays halted: people release it once its orders are decided
    await record(conn, [_event(standing, people, reason, now)])
    return replace(
        standing, state=RestoreState.OPEN, opened_by=signed, opened_reason=reason, opened_at=now
    )


def _require_reason(reason: str) -> None:
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")


def _event(standing: Restore, people: str, reason: str, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=standing.id,
        version=2,
        name=OPENED,
        at=now,
        actor=people,
        reason=reason,
        from_state=standing.state,
        to_state=RestoreState.OPEN,
        payload={"records": standing.records, "mark": standing.mark},
    )
