"""Facts, read again to their end: chains, statements, accounts at venues; and what a person vouches for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.model import Block
from chain.ports import ChainReader
from custody.banks.statements import list_gaps, newest_statement_days
from custody.errors import NotPossible
from custody.restore import store
from custody.restore.model import (
    ADDRESSES,
    REASON_LENGTH_MAX,
    SIGNER_LOG,
    WHAT_LENGTH_MAX,
    Item,
    ItemState,
    Restore,
    Source,
    SourceState,
    Stage,
    chain_of,
    statements_of,
    venue_of,
    vouching_bytes,
    withdrawals_of,
)
from custody.restore.progress import note_sent
from custody.restore.signer_log import MARGIN
from custody.restore_gate import BY
from custody.venues.following import list_strange, reopen
from custody.venues.forgotten import save_forgotten
from custody.venues.model import GIVEN_UP, UNSETTLED, Place, WithdrawalState
from custody.venues.store import list_withdrawals
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from registry.authority import require_role, verify_signature
from registry.model import Role
from registry.queries import get_operator, list_bank_accounts
from venues.ports import VenueGateway
from venues.restored import VenueRead, read_again
from venues.treasury_model import WithdrawalRecord, WithdrawalStatus
from venues.treasury_ports import VenueTreasury

VOUCHERS = (Role.OPERATIONS, Role.TREASURER, Role.FINANCE, Role.APPROVER, Role.ADMIN)


async def cover_chain(
    engine: AsyncEngine, reader: ChainReader, chain: str, *, clock: Clock, by: str = BY
) -> bool:
    """Note that a chain is followed again to where its head was; tell whether it is.

    The head counts that the node names first, once it is known what was sent: by then the restored house
    had long stopped sending, so every block that can have a payment of its lost hours, and is there, is
    below. A head that is asked for anew each time is never reached where blocks are fast. One that is
    older than the finding of the restore does not count: its node may still be catching up.

    Raises:
        NotPossible: no restore stands, or it is not known yet what was sent.
        OutsideUnavailable: the node does not answer, or is behind.
    """
    async with engine.connect() as conn:
        standing = await _require_sent(conn)
        target = await store.find_target(conn, standing.id, chain_of(chain))
    if target is None:
        target = _require_caught_up(await reader.head(), standing).height

    async def work(conn: AsyncConnection) -> bool:
        found = await _require_sent(conn)
        await store.save_target(conn, found.id, chain_of(chain), target)
        cursor = await get_cursor(conn, chain)
        if cursor is None or cursor.height < target:
            return False
        detail = f"followed to block {cursor.height} {cursor.hash}"
        return await _done(conn, found, chain_of(chain), detail, by, clock.now())

    return await transact(engine, work)


async def cover_statements(conn: AsyncConnection, *, by: str = BY, now: datetime) -> list[str]:
    """Note which accounts have statements, without a gap, up to the day on which it was found.

    Returns:
        The accounts that wait for one still.
    """
    standing = await _require_sent(conn)
    newest = await newest_statement_days(conn)
    day, waiting = standing.found_at.astimezone(UTC).date(), []
    for account in await list_bank_accounts(conn):
        last = newest.get(account.code)
        if last is None or last < day or await list_gaps(conn, [account.code]):
            waiting.append(account.code)
            continue
        detail = f"statements up to {last.isoformat()}"
        await _done(conn, standing, statements_of(account.code), detail, by, now)
    return waiting


async def cover_venue(
    engine: AsyncEngine,
    gateway: VenueGateway,
    *,
    clock: Clock,
    symbols: Collection[str] = (),
    by: str = BY,
) -> VenueRead:
    """Read the trades and orders of an account at a venue again, and note when nothing is unknown.

    Orders whose end is not known are cleared up by whoever looks after the account
    (`venues.orders.resume`); call this again then.

    Args:
        engine: the database.
        gateway: the account.
        clock: the time.
        symbols: read besides those that the database knows of.
        by: who reads.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    async with engine.connect() as conn:
        await _require_sent(conn)
    read = await read_again(engine, gateway, symbols, clock=clock)

    async def work(conn: AsyncConnection) -> None:
        found = await store.require_standing(conn, lock=True)
        source = venue_of(gateway.venue, gateway.account)
        detail = f"{read.new} trades were missing"
        await _done(conn, found, source, detail, by, clock.now())

    if read.is_complete:
        await transact(engine, work)
    return read


async def cover_withdrawals(
    engine: AsyncEngine, treasury: VenueTreasury, *, clock: Clock, by: str = BY
) -> list[Item]:
    """Read what was asked back from an account at a venue; return what people have to look at.

    Of a withdrawal that is missing the venue knows neither who asked for it nor why, so it is not
    written anew: people say how it is booked. It is read to its end once none is left, in whatever book,
    of which nobody knows the outcome.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    async with engine.connect() as conn:
        standing = await _require_sent(conn)
    place = Place(treasury.venue, treasury.account)
    source = withdrawals_of(place.venue, place.account)
    records = await treasury.list_withdrawals(treasury.venue_time(standing.since) - MARGIN)

    async def work(conn: AsyncConnection) -> list[Item]:
        found, now = await store.require_standing(conn, lock=True), clock.now()
        can = treasury.capabilities
        strange = await list_strange(conn, place, records, can=can)
        items = []
        for record, mine in strange:
            if mine is not None and mine.state in GIVEN_UP:
                # It may be older here than the venue's list is read by whoever moves the funds.
                await reopen(conn, mine.id, record, now)
                continue
            item = _forgotten(found, source, record, now)
            if item.state is ItemState.NOTED and await store.has_unresolved(conn, item):
                # It was on its way when it was found, and was not paid: nobody has to look any more.
                item = replace(item, state=ItemState.RESTORED)
            items.append(item)
            await store.save_item(conn, item)
            if item.state is ItemState.UNRESOLVED and not can.takes_client_id:
                await save_forgotten(conn, item.restore_id, source, item.key, place, record)
        states = {*UNSETTLED, WithdrawalState.ESCALATED}
        if not await list_withdrawals(conn, book=None, place=place, states=states, limit=1):
            detail = f"{len(items)} of {len(records)} withdrawals since are missing"
            await _done(conn, found, source, detail, by, now)
        return [i for i in items if not await store.is_settled(conn, found.id, source, i.key)]

    return await transact(engine, work)


async def vouch(
    conn: AsyncConnection,
    source: str,
    *,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> None:
    """Let a person say that a place has nothing more that is missing here.

    For what no process can know: that a bank was given no other file, that a venue is closed. For the
    signer's own log, and for addresses being watched, nobody vouches: the house does both by itself.

    Args:
        signature: Ed25519 over `vouching_bytes` of the source.

    Raises:
        NotPossible: no restore stands, the place is read already, or nobody vouches for it.
        Refused: the operator may not, or did not sign exactly this.
    """
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    standing = await store.require_standing(conn, lock=True)
    item = await store.get_source(conn, standing.id, source)
    if item.source in {SIGNER_LOG, ADDRESSES}:
        raise NotPossible(
            f"{item.source} is not vouched for: what was signed is read, what was given out is watched",
            remedy="Run `causeway restore import`",
        )
    _require_waiting(item)
    operator = await get_operator(conn, by)
    require_role(operator, *VOUCHERS)
    verify_signature(operator, vouching_bytes(item, reason), signature)
    await store.move_source(
        conn, item, SourceState.VOUCHED, detail=reason, by=by, now=now, signature=signature
    )
    if item.stage is Stage.SENT:
        await note_sent(conn, standing.id, now=now)


def _require_caught_up(head: Block, standing: Restore) -> Block:
    if head.time < standing.found_at:
        raise OutsideUnavailable(
            f"the newest block of {head.chain}, {head.height}, is of {head.time.isoformat()}, before"
            f" {standing.found_at.isoformat()}, when the restore was found",
            where=f"the node of {head.chain}",
            remedy="Wait until it has caught up; `causeway custody chain status` shows how far it is read",
        )
    return head


def _forgotten(standing: Restore, source: str, record: WithdrawalRecord, now: datetime) -> Item:
    paid = record.status is not WithdrawalStatus.FAILED
    what = (
        f"{record.status} {record.venue_ref}: {record.sent} {record.asset} to {record.address} on"
        f" {record.network}, {record.fee} kept, at {record.at.isoformat()}"
        + (f", transaction {record.tx_id}" if record.tx_id else "")
    )
    return Item(
        restore_id=standing.id,
        source=source,
        key=record.withdrawal_id or record.venue_ref,
        state=ItemState.UNRESOLVED if paid else ItemState.NOTED,
        what=what[:WHAT_LENGTH_MAX],
        found_at=now,
    )


async def _require_sent(conn: AsyncConnection) -> Restore:
    standing = await store.require_standing(conn, lock=True)
    if standing.sent_known_at is None:
        raise NotPossible(
            "what was sent is not known again, so nothing that came of it is read",
            remedy="Run `causeway restore import`; see `causeway restore status`",
        )
    return standing


async def _done(
    conn: AsyncConnection, standing: Restore, source: str, detail: str, by: str, now: datetime
) -> bool:
    known = {item.source for item in await store.list_sources(conn, standing.id)}
    if source not in known:
        return True
    item = await store.get_source(conn, standing.id, source)
    if item.state is SourceState.WAITING:
        await store.move_source(conn, item, SourceState.DONE, detail=detail, by=by, now=now)
    return True


def _require_waiting(item: Source) -> None:
    if item.state is not SourceState.WAITING:
        raise NotPossible(f"{item.source} is {item.state} already: {item.detail}")
