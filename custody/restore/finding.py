"""A restore is found, or said by a person: every door is shut, and what is to be read again is listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks import payment_store
from custody.bitcoin.cold_wallets import is_cold
from custody.freezes import CLOSERS
from custody.restore import store
from custody.restore.model import (
    ADDRESSES,
    REASON_LENGTH_MAX,
    SIGNER_LOG,
    Restore,
    RestoreState,
    Source,
    SourceState,
    Stage,
    bank_files_of,
    begin_bytes,
    chain_of,
    cold_of,
    statements_of,
    venue_of,
    withdrawals_of,
)
from custody.restore_gate import BY
from custody.skipped import skip_addresses
from custody.venues.sending import doubt_withdrawals
from custody.venues.store import list_places
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.authority import require_role, verify_signature
from registry.model import BITCOIN, Chain
from registry.queries import get_operator, list_bank_accounts, list_chains, list_wallets
from venues.restored import WHY, doubt, doubt_account

ENTITY: Final = "restore"
NOT_READ: Final = "not read yet"


async def begin(
    conn: AsyncConnection,
    evidence: str,
    *,
    since: datetime | None = None,
    by: str = BY,
    worked_on: bool = True,
    now: datetime,
) -> Restore:
    """Shut every door because the database was set back; what stands already is returned as it is.

    Args:
        conn: the caller's transaction, which must commit.
        evidence: what showed it, in words.
        since: from when on acts may be missing; None: from the last moment that this database knows.
            At the earliest it is `store.OLDEST`.
        by: ``system:restore``, or the operator who says so.
        worked_on: whether it may have been worked with since; not where nobody could before it was found.
        now: the time.
    """
    # A moment before there was any house would have venues' lists read for ever.
    newest = max(since or await _last_moment(conn), min(store.OLDEST, now))
    item = Restore(
        id=derive_id(now, ENTITY, evidence),
        state=RestoreState.FROZEN,
        found_by=by,
        found_at=now,
        evidence=evidence[:REASON_LENGTH_MAX],
        since=newest,
        worked_on=worked_on,
    )
    if not await store.insert_restore(conn, item):
        return await store.require_standing(conn)
    places = await doubt(conn, now=now)
    await doubt_withdrawals(conn, reason=WHY, actor=BY, now=now)
    await payment_store.doubt_copies(conn)
    skips = await skip_addresses(conn, item.id, now=now)
    accounts = [item.code for item in await list_bank_accounts(conn)]
    sent = [SIGNER_LOG] if (chains := await list_chains(conn)) else []
    sent += [ADDRESSES] if skips else []
    sent += [bank_files_of(code) for code in accounts]
    facts = [chain_of(chain.code) for chain in chains]
    facts += [cold_of(code) for code in await _list_cold(conn, chains)]
    facts += [statements_of(code) for code in accounts]
    facts += [venue_of(venue, account) for venue, account in places]
    facts += [withdrawals_of(item.venue, item.account) for item in await list_places(conn)]
    sources = [
        _waiting(item.id, name, stage)
        for stage, names in ((Stage.SENT, sent), (Stage.FACTS, facts))
        for name in names
    ]
    await store.insert_sources(conn, sources, NOT_READ)
    if not sent:
        item = replace(item, sent_known_at=now)
        await store.update_restore(conn, item.id, sent_known_at=now)
    await record(conn, [_event(item)])
    return item


async def add_account(
    conn: AsyncConnection, venue: str, account: str, *, has_funds: bool, now: datetime
) -> None:
    """Halt and read an account at a venue that the restored database may never have heard of.

    It may have been used for the first time after the moment. One that is known already stays as it is.

    Args:
        has_funds: whether coins can be asked back from it.

    Raises:
        NotPossible: no restore stands.
    """
    standing = await store.require_standing(conn, lock=True)
    wanted = [venue_of(venue, account)]
    wanted += [withdrawals_of(venue, account)] if has_funds else []
    known = {item.source for item in await store.list_sources(conn, standing.id)}
    missing = [name for name in wanted if name not in known]
    if wanted[0] in missing:
        await doubt_account(conn, venue, account, now=now)
    sources = [_waiting(standing.id, name, Stage.FACTS) for name in missing]
    await store.insert_sources(conn, sources, NOT_READ)


async def begin_by_hand(
    conn: AsyncConnection,
    *,
    since: datetime,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Restore:
    """Let a person say that the database was restored to *since*: one person shuts every door.

    Args:
        signature: Ed25519 over ``begin_bytes(since, reason)``.

    Raises:
        Refused: the operator is not active, may not close, or did not sign exactly this.
        BadInput: no reason, or a moment to come.
    """
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a restore has a reason of 1 to {REASON_LENGTH_MAX} characters")
    if since > now:
        raise BadInput(f"{since.isoformat()} is in the future")
    operator = await get_operator(conn, by)
    require_role(operator, *CLOSERS)
    verify_signature(operator, begin_bytes(since, reason), signature)
    return await begin(conn, reason, since=since, by=by, now=now)


async def _list_cold(conn: AsyncConnection, chains: Sequence[Chain]) -> list[str]:
    """Return the wallets that people sign payments of."""
    return [
        wallet.code
        for chain in chains
        if chain.kind == BITCOIN
        for wallet in await list_wallets(conn, chain.code)
        if await is_cold(conn, wallet)
    ]


async def _last_moment(conn: AsyncConnection) -> datetime:
    """Return the last moment that this database knows of itself."""
    watch = await store.find_watch(conn)
    _, _, marked = await store.last_mark(conn)
    known = [item for item in (None if watch is None else watch.at, marked) if item is not None]
    return max(known, default=store.OLDEST)


def _waiting(restore_id: UUID, name: str, stage: Stage) -> Source:
    return Source(restore_id=restore_id, source=name, stage=stage, state=SourceState.WAITING)


def _event(item: Restore) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=1,
        name="RestoreFound",
        at=item.found_at,
        actor=item.found_by,
        reason=item.evidence,
        to_state=item.state,
        payload={"since": item.since.isoformat()},
    )
