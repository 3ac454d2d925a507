"""Reading and writing transfers to and from venues. Private."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    CursorResult,
    Row,
    Select,
    Text,
    Update,
    any_,
    func,
    literal,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible, UnknownRow
from custody.payout_model import PayoutState, Quorum
from custody.payout_tables import payout
from custody.policy_documents import quorums_to_document
from custody.tables import deposit
from custody.venues.model import (
    AddressState,
    Place,
    RegisteredAddress,
    VenueDeposit,
    VenueDepositState,
    VenueWithdrawal,
    WithdrawalState,
)
from custody.venues.tables import (
    venue_address,
    venue_deposit,
    venue_withdrawal,
    venue_withdrawal_approval,
)
from kernel.db import sqlstate
from kernel.errors import StaleFence
from kernel.leases import claim

PAGE_MAX: Final = 500
UNIQUE_VIOLATION: Final = "23505"
_MS: Final = timedelta(milliseconds=1)
_HIDDEN: Final = frozenset({"lease_holder", "lease_until"})


# Registered addresses.


async def insert_address(conn: AsyncConnection, item: RegisteredAddress) -> bool:
    """Insert a proposed address; False where one is proposed for the same already."""
    values = {name: getattr(item, name) for name in RegisteredAddress.__dataclass_fields__}
    done = await conn.execute(insert(venue_address).values(**values).on_conflict_do_nothing())
    return done.rowcount == 1


async def get_address(
    conn: AsyncConnection, address_id: UUID, *, lock: bool = False
) -> RegisteredAddress:
    """Return a registered address.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(venue_address).where(venue_address.c.id == address_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no venue address {address_id}")
    return _address(row)


async def update_address(conn: AsyncConnection, address_id: UUID, **values: Any) -> None:
    """Write a locked address."""
    await conn.execute(
        update(venue_address).where(venue_address.c.id == address_id).values(**values)
    )


async def list_addresses(
    conn: AsyncConnection,
    *,
    place: Place | None = None,
    states: Collection[AddressState] = tuple(AddressState),
    asset: str | None = None,
    chain: str | None = None,
) -> list[RegisteredAddress]:
    """Return registered addresses, oldest first."""
    table = venue_address
    query = select(table).where(table.c.state.in_([str(state) for state in states]))
    if place is not None:
        query = query.where(table.c.venue == place.venue, table.c.account == place.account)
    if asset is not None:
        query = query.where(table.c.asset == asset)
    if chain is not None:
        query = query.where(table.c.chain == chain)
    rows = await conn.execute(query.order_by(table.c.proposed_at, table.c.id).limit(PAGE_MAX))
    return [_address(row) for row in rows]


# To venues.


async def insert_deposit(conn: AsyncConnection, item: VenueDeposit) -> bool:
    """Insert the row of a payout to a venue; False where it is there already."""
    values = {name: getattr(item, name) for name in VenueDeposit.__dataclass_fields__}
    done = await conn.execute(insert(venue_deposit).values(**values).on_conflict_do_nothing())
    return done.rowcount == 1


async def list_payouts_without_row(
    conn: AsyncConnection, place: Place, book: int
) -> list[tuple[UUID, str, str, str, int, str]]:
    """Return (id, chain, asset, destination, amount, wallet) of payouts there without a row."""
    known = select(venue_deposit.c.payout_id).where(venue_deposit.c.payout_id == payout.c.id)
    rows = await conn.execute(
        select(
            payout.c.id,
            payout.c.chain,
            payout.c.asset,
            payout.c.destination,
            payout.c.amount,
            payout.c.source_wallet,
        )
        .where(
            payout.c.book == book,
            payout.c.claim == place.claim,
            payout.c.amount > 0,
            ~known.exists(),
        )
        .order_by(payout.c.id)
        .limit(PAGE_MAX)
    )
    return [(r.id, r.chain, r.asset, r.destination, int(r.amount), r.source_wallet) for r in rows]


async def list_deposits(
    conn: AsyncConnection,
    *,
    book: int,
    place: Place | None = None,
    states: Collection[VenueDepositState] = tuple(VenueDepositState),
    since: datetime | None = None,
) -> list[VenueDeposit]:
    """Return transfers to venues, oldest first."""
    table = venue_deposit
    query = select(table).where(
        table.c.book == book, table.c.state.in_([str(state) for state in states])
    )
    if place is not None:
        query = query.where(table.c.venue == place.venue, table.c.account == place.account)
    if since is not None:
        query = query.where(table.c.updated_at >= since)
    rows = await conn.execute(query.order_by(table.c.id).limit(PAGE_MAX))
    return [_deposit(row) for row in rows]


async def list_undone_deposits(
    conn: AsyncConnection, place: Place, *, book: int, since: datetime
) -> set[UUID]:
    """Return the payouts of transfers credited since *since* that are not confirmed any more."""
    table = venue_deposit
    rows = await conn.execute(
        select(table.c.payout_id)
        .join(payout, payout.c.id == table.c.payout_id)
        .where(
            table.c.book == book,
            table.c.venue == place.venue,
            table.c.account == place.account,
            table.c.state == VenueDepositState.CREDITED.value,
            table.c.updated_at >= since,
            payout.c.state != PayoutState.CONFIRMED.value,
        )
        .order_by(table.c.id)
        .limit(PAGE_MAX)
    )
    return set(rows.scalars())


async def list_deposits_of(
    conn: AsyncConnection, payout_ids: Collection[UUID], *, lock: bool = False
) -> dict[UUID, VenueDeposit]:
    """Return the transfers that these payouts carry, by payout."""
    query = (
        select(venue_deposit)
        .where(venue_deposit.c.payout_id.in_(payout_ids))
        .order_by(venue_deposit.c.id)
    )
    rows = await conn.execute(query.with_for_update() if lock else query)
    return {row.payout_id: _deposit(row) for row in rows}


async def get_deposit(
    conn: AsyncConnection, deposit_id: UUID, *, lock: bool = False
) -> VenueDeposit:
    """Return a transfer to a venue.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(venue_deposit).where(venue_deposit.c.id == deposit_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no transfer to a venue {deposit_id}")
    return _deposit(row)


async def update_deposit(conn: AsyncConnection, deposit_id: UUID, **values: Any) -> None:
    """Write a locked transfer to a venue.

    Raises:
        NotPossible: another transfer has been given the venue's id in this moment.
    """
    query = update(venue_deposit).where(venue_deposit.c.id == deposit_id).values(**values)
    await _write(conn, query, f"transfer {deposit_id}")


async def list_credited_refs(
    conn: AsyncConnection, place: Place, refs: Collection[str]
) -> set[str]:
    """Return which of the venue's ids of deposits some transfer of ours has."""
    rows = await conn.execute(
        select(venue_deposit.c.venue_ref).where(
            venue_deposit.c.venue == place.venue,
            venue_deposit.c.account == place.account,
            _is_one_of(venue_deposit.c.venue_ref, refs),
        )
    )
    return set(rows.scalars())


# From venues.


async def insert_withdrawal(conn: AsyncConnection, item: VenueWithdrawal) -> bool:
    """Insert a withdrawal; False where the place has one of that reference already."""
    values = {name: getattr(item, name) for name in VenueWithdrawal.__dataclass_fields__}
    values["required"] = quorums_to_document(item.required)
    values["window_ms"] = values.pop("window") // _MS
    done = await conn.execute(insert(venue_withdrawal).values(**values).on_conflict_do_nothing())
    return done.rowcount == 1


async def find_withdrawal(
    conn: AsyncConnection, book: int, place: Place, client_ref: str
) -> VenueWithdrawal | None:
    """Return the withdrawal of a reference."""
    return await _one(
        conn,
        select(venue_withdrawal).where(
            venue_withdrawal.c.book == book,
            _at(place),
            venue_withdrawal.c.client_ref == client_ref,
        ),
    )


async def get_withdrawal(
    conn: AsyncConnection, withdrawal_id: UUID, *, lock: bool = False
) -> VenueWithdrawal:
    """Return a withdrawal.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(venue_withdrawal).where(venue_withdrawal.c.id == withdrawal_id)
    found = await _one(conn, query.with_for_update() if lock else query)
    if found is None:
        raise UnknownRow(f"there is no withdrawal from a venue {withdrawal_id}")
    return found


async def list_withdrawals(
    conn: AsyncConnection,
    *,
    book: int | None,
    place: Place | None = None,
    states: Collection[WithdrawalState] = tuple(WithdrawalState),
    due: datetime | None = None,
    since: datetime | None = None,
    limit: int = PAGE_MAX,
) -> list[VenueWithdrawal]:
    """Return withdrawals, oldest first.

    Args:
        book: None: of every book.
        due: only those that the worker may look at by then.
        since: only those that changed then or later.
    """
    table = venue_withdrawal
    query = select(table).where(table.c.state.in_([str(state) for state in states]))
    if book is not None:
        query = query.where(table.c.book == book)
    if place is not None:
        query = query.where(_at(place))
    if due is not None:
        query = query.where(table.c.run_after <= due)
    if since is not None:
        query = query.where(table.c.updated_at >= since)
    rows = await conn.execute(query.order_by(table.c.id).limit(min(limit, PAGE_MAX)))
    return [_withdrawal(row) for row in rows]


async def list_ids_in(conn: AsyncConnection, states: Collection[WithdrawalState]) -> list[UUID]:
    """Return a page of the withdrawals of every book that are in one of *states*, oldest first."""
    table = venue_withdrawal
    query = select(table.c.id).where(table.c.state.in_([str(state) for state in states]))
    return list((await conn.execute(query.order_by(table.c.id).limit(PAGE_MAX))).scalars())


async def list_places(conn: AsyncConnection) -> list[Place]:
    """Return every account at a venue that coins were sent to or asked back from."""
    tables = (venue_deposit, venue_withdrawal, venue_address)
    found = await conn.execute(union(*(select(t.c.venue, t.c.account).distinct() for t in tables)))
    return sorted(Place(row.venue, row.account) for row in found)


async def claim_withdrawal(
    conn: AsyncConnection,
    withdrawal_id: UUID,
    *,
    states: Collection[WithdrawalState],
    holder: str,
    now: datetime,
    lease_for: timedelta,
) -> VenueWithdrawal | None:
    """Claim a withdrawal that is in one of *states*; None: it is not, or another one has it."""
    table = venue_withdrawal
    rows = await claim(
        conn,
        table,
        where=(table.c.id == withdrawal_id) & table.c.state.in_([str(s) for s in states]),
        order_by=(table.c.id,),
        holder=holder,
        now=now,
        lease_for=lease_for,
        limit=1,
    )
    return _withdrawal(rows[0]) if rows else None


async def update_withdrawal(
    conn: AsyncConnection, withdrawal_id: UUID, *, fence: int, **values: Any
) -> None:
    """Write a withdrawal under the fence at which it was read.

    Raises:
        StaleFence: another worker has claimed it since.
        NotPossible: another withdrawal has been given the venue's id in this moment.
    """
    query = (
        update(venue_withdrawal)
        .where(venue_withdrawal.c.id == withdrawal_id, venue_withdrawal.c.fence == fence)
        .values(**values)
    )
    done = await _write(conn, query, f"withdrawal {withdrawal_id}")
    if done.rowcount != 1:
        raise StaleFence(f"withdrawal {withdrawal_id} was taken over by another worker")


async def list_venue_refs(
    conn: AsyncConnection, place: Place, refs: Collection[str], *, but: UUID | None
) -> set[str]:
    """Return which of the venue's ids of withdrawals rows of ours have, one row left out."""
    query = select(venue_withdrawal.c.venue_ref).where(
        _at(place), _is_one_of(venue_withdrawal.c.venue_ref, refs)
    )
    if but is not None:
        query = query.where(venue_withdrawal.c.id != but)
    return set((await conn.execute(query)).scalars())


async def list_by_own_id(
    conn: AsyncConnection, place: Place, ids: Collection[str]
) -> dict[str, VenueWithdrawal]:
    """Return withdrawals of a place by the ids that the venue was told."""
    if not ids:
        return {}
    rows = await conn.execute(
        select(venue_withdrawal)
        .where(_at(place), _is_one_of(venue_withdrawal.c.withdrawal_id, ids))
        .order_by(venue_withdrawal.c.id)
    )
    return {row.withdrawal_id: _withdrawal(row) for row in rows}


async def insert_approval(
    conn: AsyncConnection, withdrawal_id: UUID, operator: str, signature: bytes, at: datetime
) -> None:
    """Insert an approval; again is no second one."""
    await conn.execute(
        insert(venue_withdrawal_approval)
        .values(withdrawal_id=withdrawal_id, operator=operator, signature=signature, at=at)
        .on_conflict_do_nothing()
    )


async def list_approvals(conn: AsyncConnection, withdrawal_id: UUID) -> dict[str, bytes]:
    """Return the signatures under a withdrawal by operator."""
    table = venue_withdrawal_approval
    rows = await conn.execute(
        select(table.c.operator, table.c.signature)
        .where(table.c.withdrawal_id == withdrawal_id)
        .order_by(table.c.at, table.c.operator)
    )
    return {row.operator: bytes(row.signature) for row in rows}


# What arrives on the chain.


async def list_sent(
    conn: AsyncConnection, chain: str, tx_ids: Collection[str], states: Collection[str]
) -> list[VenueWithdrawal]:
    """Return the withdrawals of *chain* that venues say went out with these transactions.

    None of them is given up before the caller's block is on record, so what the block brings on a way
    finds somebody who waits for it there.
    """
    table = venue_withdrawal
    rows = await conn.execute(
        select(table)
        .where(table.c.chain == chain, table.c.tx_id.in_(tx_ids), table.c.state.in_(states))
        .order_by(table.c.id)
        .with_for_update(read=True)
    )
    return [_withdrawal(row) for row in rows]


async def find_arrivals(
    conn: AsyncConnection, item: VenueWithdrawal, spelled: Sequence[str]
) -> list[tuple[UUID, str]]:
    """Return (id, state) of deposit rows that can be what arrived of a withdrawal.

    Args:
        spelled: the spellings of its transaction id.
    """
    rows = await conn.execute(
        select(deposit.c.id, deposit.c.state)
        .where(
            deposit.c.chain == item.chain,
            deposit.c.tx_hash.in_(spelled),
            deposit.c.address == item.address,
            deposit.c.asset == item.asset,
            deposit.c.amount == item.sent,
        )
        .order_by(deposit.c.position, deposit.c.id)
    )
    return [(row.id, row.state) for row in rows]


async def list_taken_arrivals(conn: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Return which of these deposit rows are the arrival of a withdrawal."""
    column = venue_withdrawal.c.arrival_id
    return set((await conn.execute(select(column).where(column.in_(ids)))).scalars())


async def list_lost_arrivals(conn: AsyncConnection, place: Place, book: int) -> list[UUID]:
    """Return the withdrawals that had arrived and whose block is gone."""
    rows = await conn.execute(
        select(venue_withdrawal.c.id)
        .join(deposit, deposit.c.id == venue_withdrawal.c.arrival_id)
        .where(venue_withdrawal.c.book == book, _at(place), deposit.c.state != "arrived")
        .order_by(venue_withdrawal.c.id)
        .limit(PAGE_MAX)
    )
    return list(rows.scalars())


async def sum_open(
    conn: AsyncConnection, asset: str, book: int, since: datetime, *, at: datetime | None = None
) -> int:
    """Return what was asked of venues since *since* and is not given back.

    Args:
        at: as it was then: what was given back later counts, what was asked for later does not.
    """
    table = venue_withdrawal
    # What the venue made after all, though it had been given up, counts.
    kept = or_(table.c.released_at.is_(None), table.c.sent.is_not(None))
    query = select(func.coalesce(func.sum(table.c.amount), 0)).where(
        table.c.book == book, table.c.asset == asset, table.c.requested_at > since
    )
    if at is None:
        query = query.where(kept)
    else:
        query = query.where(table.c.requested_at <= at, or_(kept, table.c.released_at > at))
    total = await conn.scalar(query)
    return int(total or 0)


async def _write(conn: AsyncConnection, query: Update, what: str) -> CursorResult[Any]:
    """Write a row; what the venue calls by one id is one row, also where two are written at once."""
    try:
        return await conn.execute(query)
    except IntegrityError as error:
        if sqlstate(error) != UNIQUE_VIOLATION:
            raise
        raise NotPossible(
            f"the venue's id for {what} is another one's", remedy="Look at both, then decide"
        ) from error


def _at(place: Place) -> ColumnElement[bool]:
    table = venue_withdrawal
    return (table.c.venue == place.venue) & (table.c.account == place.account)


def _is_one_of(column: Column[Any], words: Collection[str]) -> ColumnElement[bool]:
    """Compare with one array: a venue may list more than a statement takes parameters."""
    return column == any_(literal(sorted(words), ARRAY(Text)))


async def _one(conn: AsyncConnection, query: Select[Any]) -> VenueWithdrawal | None:
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _withdrawal(row)


def _address(row: Row[Any]) -> RegisteredAddress:
    return RegisteredAddress(**{**_values(row), "state": AddressState(row.state)})


def _deposit(row: Row[Any]) -> VenueDeposit:
    values = {
        **_values(row),
        "state": VenueDepositState(row.state),
        "amount": int(row.amount),
        "credited": None if row.credited is None else int(row.credited),
    }
    return VenueDeposit(**values)


def _withdrawal(row: Row[Any]) -> VenueWithdrawal:
    values = {
        **_values(row),
        "state": WithdrawalState(row.state),
        "required": tuple(Quorum(item["group"], int(item["approvals"])) for item in row.required),
        "window": row.window_ms * _MS,
        "amount": int(row.amount),
        "fee_max": int(row.fee_max),
        "sent": None if row.sent is None else int(row.sent),
        "fee": None if row.fee is None else int(row.fee),
    }
    del values["window_ms"]
    return VenueWithdrawal(**values)


def _values(row: Row[Any]) -> Mapping[str, Any]:
    return {key: value for key, value in row._mapping.items() if key not in _HIDDEN}  # noqa: SLF001  the public name of a row's mapping
