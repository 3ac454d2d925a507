"""Rows of addresses, deposits and receipts to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    Uuid,
    and_,
    any_,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import DELTA, TOP
from custody import tables
from custody.bitcoin.coin_model import OUTPUT
from custody.compliance.tables import compliance_case
from custody.deposit_model import (
    Arrival,
    Attribution,
    Deposit,
    DepositKind,
    DepositState,
    Observation,
    Receipt,
    ReceiptState,
    SourceClass,
)
from custody.errors import NotPossible, UnknownRow
from custody.model import Address, AddressPurpose
from custody.payout_tables import payout
from kernel.rows import insert_rows, update_rows

Branch: TypeAlias = tuple[str, int]
"""Code of a wallet, and the branch of it."""

PAGE_MAX: Final = 500
"""Rows of arrivals read or claimed at once, at most."""

A = TypeVar("A", Deposit, Receipt)

_TABLES: Final[Mapping[type[Arrival], Table]] = {
    Deposit: tables.deposit,
    Receipt: tables.receipt,
}
_IDENTITY: Final = frozenset({"id", "chain", "tx_hash", "position", "first_seen_at"})
"""The columns that never change: what an arrival is known by."""


_CONFIRMED: Final = (DepositState.CONFIRMED, DepositState.SCREENED)
_NO_LONGER: Final = (DepositState.ORPHANED, DepositState.REVERSED, DepositState.ATTRIBUTED)
CAME_BACK: Final = ("rejected", "cancelled", "expired", "failed_on_chain")


# Addresses.


async def lock_branch(conn: AsyncConnection, wallet: str, branch: int) -> int:
    """Return the next index of a branch, its row locked until the transaction ends."""
    table = tables.address_branch
    mine = (table.c.wallet == wallet) & (table.c.branch == branch)
    first = upsert(table).values(wallet=wallet, branch=branch, next_index=0)
    await conn.execute(first.on_conflict_do_nothing())
    index = await conn.scalar(select(table.c.next_index).where(mine).with_for_update())
    assert index is not None
    return int(index)


async def has_branch(conn: AsyncConnection, wallet: str, branch: int) -> bool:
    """Tell whether an index of a branch was ever asked for."""
    table = tables.address_branch
    query = select(table.c.wallet).where(table.c.wallet == wallet, table.c.branch == branch)
    return (await conn.execute(query)).first() is not None


async def move_branch(conn: AsyncConnection, wallet: str, branch: int, index: int) -> None:
    """Write the next index of a branch, whose row is locked."""
    table = tables.address_branch
    mine = (table.c.wallet == wallet) & (table.c.branch == branch)
    await conn.execute(update(table).where(mine).values(next_index=index))


async def list_indexes(
    conn: AsyncConnection, wallet: str, branch: int, first: int, last: int
) -> set[int]:
    """Return which indexes from *first* to *last* of a branch have a row."""
    table = tables.address
    query = select(table.c.index).where(
        table.c.wallet == wallet, table.c.branch == branch, table.c.index.between(first, last)
    )
    return set((await conn.scalars(query)).all())


async def insert_address(conn: AsyncConnection, new: Address) -> None:
    """Write an address at the next index of its branch, whose row is locked."""
    await conn.execute(insert(tables.address).values(address_values(new)))
    await move_branch(conn, new.wallet, new.branch, new.index + 1)


async def list_addresses(
    conn: AsyncConnection,
    chain: str,
    *,
    wallet: str | None = None,
    only: Collection[str] | None = None,
) -> list[Address]:
    """Return our addresses on a chain, by wallet, branch and index."""
    table = tables.address
    query = select(table).where(table.c.chain == chain)
    if wallet is not None:
        query = query.where(table.c.wallet == wallet)
    if only is not None:
        query = query.where(_one_of(table.c.address, only))
    query = query.order_by(table.c.wallet, table.c.branch, table.c.index)
    return [_address(row) for row in await conn.execute(query)]


async def find_handed_out(
    conn: AsyncConnection,
    wallet: str,
    purpose: AddressPurpose,
    party: str | None,
    *,
    reference: str,
    chain_asset: str | None,
) -> Address | None:
    """Return the address that was handed out for exactly this: by its reference, else by its asset."""
    known = None
    if reference:
        known = await _find_by_reference(conn, wallet, purpose, party, reference)
    if known is None and chain_asset is not None and party is not None:
        known = await _find_by_asset(conn, wallet, party, chain_asset)
    return known


async def _find_by_reference(
    conn: AsyncConnection, wallet: str, purpose: AddressPurpose, party: str | None, reference: str
) -> Address | None:
    """Return the address that was handed out for exactly this."""
    table = tables.address
    query = select(table).where(
        table.c.wallet == wallet,
        table.c.purpose == purpose,
        table.c.party.is_not_distinct_from(party),
        table.c.reference == reference,
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _address(row)


async def _find_by_asset(
    conn: AsyncConnection, wallet: str, party: str, chain_asset: str
) -> Address | None:
    """Return the deposit address that the party has for this asset."""
    table = tables.address
    query = select(table).where(
        table.c.wallet == wallet, table.c.party == party, table.c.chain_asset == chain_asset
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _address(row)


async def keep_wallet_key(
    conn: AsyncConnection, wallet: str, keys: str, root: str, first_address: str, now: datetime
) -> tuple[str, str]:
    """Return the key and first address that the wallet began with; these, if it is new."""
    table = tables.wallet_key
    new = upsert(table).values(
        wallet=wallet,
        keys=keys,
        key_root=root,
        first_address=first_address,
        checked_at=now,
    )
    query = select(table.c["keys"], table.c.first_address).where(table.c.wallet == wallet)
    found = (await conn.execute(query)).one_or_none()
    if found is None:
        await conn.execute(new.on_conflict_do_nothing())
        found = (await conn.execute(query)).one()
    return found[0], found[1]


async def list_branches(conn: AsyncConnection, chain: str) -> dict[Branch, int]:
    """Return the next index of each branch of the chain's wallets that has an address."""
    table, named = tables.address_branch, tables.address
    mine = (named.c.wallet == table.c.wallet) & (named.c.branch == table.c.branch)
    first = select(named.c.chain).where(mine).order_by(named.c.index).limit(1)
    on_chain = first.scalar_subquery()
    query = select(table.c.wallet, table.c.branch, table.c.next_index).where(on_chain == chain)
    return {(row.wallet, row.branch): row.next_index for row in await conn.execute(query)}


async def list_addresses_from(
    conn: AsyncConnection, chain: str, branches: Mapping[Branch, int]
) -> list[str]:
    """Return the addresses of these branches from an index on; nothing else of them."""
    table = tables.address
    found: list[str] = []
    for (wallet, branch), index in branches.items():
        query = select(table.c.address).where(
            table.c.chain == chain,
            table.c.wallet == wallet,
            table.c.branch == branch,
            table.c.index >= index,
        )
        found += (await conn.scalars(query)).all()
    return found


# Deposits and receipts.


async def insert_arrivals(conn: AsyncConnection, new: Sequence[Deposit | Receipt]) -> None:
    """Write new arrivals, in one statement for each of the two kinds.

    Raises:
        NotPossible: an identity is known already; whoever asked should have locked that row.
    """
    for kind, table in _TABLES.items():
        rows = [_values(item) for item in new if type(item) is kind]
        written = await insert_rows(conn, table, rows, known="ON CONFLICT DO NOTHING")
        if written != len(rows):
            raise NotPossible(
                f"{len(rows) - written} of {len(rows)} new rows of {table.name} are known already"
            )


async def insert_arrival(conn: AsyncConnection, new: Deposit | Receipt) -> None:
    """Write a new arrival; see `insert_arrivals`."""
    await insert_arrivals(conn, [new])


async def save_arrivals(conn: AsyncConnection, changed: Sequence[Deposit | Receipt]) -> None:
    """Write what may change of arrivals whose rows are locked, in one statement for each kind.

    Each row is named once: a second state of it in one statement would be lost.
    """
    for kind, table in _TABLES.items():
        rows = [
            {"id": item.id, **_values(item, leave_out=_IDENTITY)}
            for item in changed
            if type(item) is kind
        ]
        assert len({row["id"] for row in rows}) == len(rows), "a row is named twice"
        written = await update_rows(conn, table, rows)
        assert written == len(rows), f"{len(rows) - written} rows of {table.name} are gone"


async def save_arrival(conn: AsyncConnection, changed: Deposit | Receipt) -> None:
    """Write what may change of an arrival whose row is locked."""
    await save_arrivals(conn, [changed])


async def insert_observations(conn: AsyncConnection, seen: Sequence[Observation]) -> None:
    """Write inclusions of arrivals."""
    rows = [{f.name: getattr(one, f.name) for f in fields(Observation)} for one in seen]
    await insert_rows(conn, tables.observation, rows)


async def list_observations(conn: AsyncConnection, arrival_id: UUID) -> list[Observation]:
    """Return every inclusion of an arrival, the first one first."""
    table = tables.observation
    query = select(table).where(table.c.arrival_id == arrival_id).order_by(table.c.epoch)
    return [Observation(*row) for row in await conn.execute(query)]


async def lock_known(
    conn: AsyncConnection, kind: type[A], chain: str, identities: Collection[tuple[str, str]]
) -> dict[tuple[str, str], A]:
    """Return the arrivals among (transaction hash, position) that are known, locked."""
    if not identities:
        return {}
    table = _TABLES[kind]
    hashes = _one_of(table.c.tx_hash, {tx_hash for tx_hash, _ in identities})
    query = select(table).where(table.c.chain == chain, hashes)
    found = await _arrivals(conn, kind, query.order_by(table.c.id).with_for_update())
    known = {(item.tx_hash, item.position): item for item in found}
    return {identity: known[identity] for identity in identities if identity in known}


async def lock_in_block(
    conn: AsyncConnection, kind: type[A], chain: str, block_hash: str
) -> list[A]:
    """Lock and return the arrivals whose newest inclusion is in this block."""
    table = _TABLES[kind]
    query = select(table).where(table.c.chain == chain, table.c.block_hash == block_hash)
    return await _arrivals(conn, kind, query.order_by(table.c.id).with_for_update())


async def claim_arrivals(
    conn: AsyncConnection,
    kind: type[A],
    chain: str,
    states: Collection[str],
    *,
    tip: int,
    finalized: int,
    proven: bool = False,
) -> list[A]:
    """Lock and return arrivals that may be deep enough, lowest block first.

    What policy asked for before is never lowered, so what does not meet that is left out here and
    cannot keep others waiting; arrivals locked elsewhere are left as well.

    Args:
        proven: whether what needs a second proof has to have it.
    """
    table = _TABLES[kind]
    query = (
        select(table)
        .where(table.c.chain == chain, table.c.state.in_(sorted(states)), _is_somebodys(table))
        .where(table.c.height <= tip, table.c.height <= tip + 1 - table.c.depth_required)
        .where(or_(table.c.finality_required.is_(False), table.c.height <= finalized))
        .order_by(table.c.height, table.c.id)
        .limit(PAGE_MAX)
        .with_for_update(skip_locked=True)
    )
    return await _arrivals(conn, kind, query.where(_is_proven(table)) if proven else query)


async def lock_at(
    conn: AsyncConnection, kind: type[A], chain: str, address: str, states: Collection[str]
) -> list[A]:
    """Lock and return the arrivals at an address that are in one of these states, by id."""
    table = _TABLES[kind]
    query = select(table).where(
        table.c.chain == chain, table.c.address == address, table.c.state.in_(sorted(states))
    )
    return await _arrivals(conn, kind, query.order_by(table.c.id).with_for_update())


async def list_at_skipped(conn: AsyncConnection, limit: int) -> list[Deposit]:
    """Return what arrived at skipped addresses and is nobody's yet, the first one first."""
    table, named = tables.deposit, tables.address
    at = (named.c.chain == table.c.chain) & (named.c.address == table.c.address)
    query = (
        select(table)
        .join_from(table, named, at)
        .where(named.c.purpose == AddressPurpose.SKIPPED)
        .where(table.c.state.not_in(_NO_LONGER))
        .order_by(table.c.id)
        .limit(limit)
    )
    return await _arrivals(conn, Deposit, query)


async def list_withheld(conn: AsyncConnection, receipts: Collection[UUID]) -> set[UUID]:
    """Return which of these receipts lie at an address that was withheld since."""
    table = tables.receipt
    mine = table.c.id == any_(literal(sorted(receipts), ARRAY(Uuid)))
    query = select(table.c.id).where(mine, ~_is_somebodys(table))
    return set((await conn.scalars(query)).all())


async def list_in_blocks(
    conn: AsyncConnection, kind: type[A], chain: str, hashes: Collection[str]
) -> list[A]:
    """Return the arrivals whose newest inclusion is in these blocks, lowest block first."""
    table = _TABLES[kind]
    query = (
        select(table)
        .where(table.c.chain == chain, _one_of(table.c.block_hash, hashes))
        .order_by(table.c.height, table.c.id)
    )
    return await _arrivals(conn, kind, query)


async def list_unproven(
    conn: AsyncConnection, kind: type[A], chain: str, state: str, *, tip: int
) -> list[A]:
    """Return arrivals in *state* that the balances have not been asked about, lowest block first.

    Those that are not as deep below *tip* as policy asked for already are left out.
    """
    table = _TABLES[kind]
    query = (
        select(table)
        .where(table.c.chain == chain, table.c.state == state)
        .where(table.c.height <= tip, table.c.height <= tip + 1 - table.c.depth_required)
        .where(table.c.received.is_(None), ~table.c.position.startswith(DELTA))
        .where(~_proves_itself(table))
        .order_by(table.c.waiting_for, table.c.height, table.c.id)
        .limit(PAGE_MAX)
    )
    return await _arrivals(conn, kind, query)


def _is_proven(table: Table) -> ColumnElement[bool]:
    delta = table.c.position.startswith(DELTA)
    return or_(table.c.received.is_not(None), _proves_itself(table), delta)


def _proves_itself(table: Table) -> ColumnElement[bool]:
    """Return the condition that nothing but the block has to say what arrived.

    The value that a transaction itself carries, and an output of Bitcoin, are what they say they are.
    """
    native = and_(table.c.contract.is_(None), table.c.position == TOP)
    return or_(native, table.c.position.startswith(OUTPUT))


async def lock_deposits(
    conn: AsyncConnection, ids: Collection[UUID], states: Collection[str]
) -> list[Deposit]:
    """Lock and return those of these deposits that are in one of the states."""
    return await lock_arrivals(conn, Deposit, ids, states)


async def lock_arrivals(
    conn: AsyncConnection, kind: type[A], ids: Collection[UUID], states: Collection[str]
) -> list[A]:
    """Lock and return those of these arrivals that are in one of the states."""
    table = _TABLES[kind]
    query = (
        select(table)
        .where(
            table.c.id == any_(literal(sorted(ids), ARRAY(Uuid))),
            table.c.state.in_(sorted(states)),
        )
        .order_by(table.c.id)
        .with_for_update()
    )
    return await _arrivals(conn, kind, query)


async def claim_answered(
    conn: AsyncConnection, chain: str, *, after: UUID | None, proven: bool
) -> list[Deposit]:
    """Lock and return confirmed deposits that need nobody's answer any more, by id.

    Those are: nobody's and dust, clients' with a case that is decided, and those of which less arrived.

    Args:
        after: only those behind this one.
        proven: whether what needs a second proof has to have it.
    """
    table, case = tables.deposit, compliance_case
    of_this_epoch = and_(
        case.c.subject == "deposit", case.c.subject_id == table.c.id, case.c.epoch == table.c.epoch
    )
    query = (
        select(table)
        .select_from(table.outerjoin(case, of_this_epoch))
        .where(table.c.chain == chain, table.c.state.in_(_CONFIRMED), _is_somebodys(table))
        .where(
            or_(
                table.c.kind != DepositKind.CLIENT,
                table.c.received < table.c.amount,
                case.c.state != "open",
            )
        )
        .order_by(table.c.id)
        .limit(PAGE_MAX)
        .with_for_update(of=table, skip_locked=True)
    )
    if after is not None:
        query = query.where(table.c.id > after)
    if proven:
        query = query.where(_is_proven(table))
    return await _arrivals(conn, Deposit, query)


async def list_refunds(conn: AsyncConnection) -> list[tuple[UUID, str]]:
    """Return deposits being given back whose payout has moved on, and the payout's state."""
    table = tables.deposit
    on_its_way = and_(
        table.c.state == DepositState.REFUNDING, payout.c.state.in_(("confirmed", *CAME_BACK))
    )
    gone_again = and_(table.c.state == DepositState.REFUNDED, payout.c.state != "confirmed")
    query = (
        select(table.c.id, payout.c.state)
        .join_from(table, payout, payout.c.id == table.c.refund)
        .where(or_(on_its_way, gone_again))
        .order_by(table.c.id)
        .limit(PAGE_MAX)
    )
    return [(row.id, row.state) for row in await conn.execute(query)]


async def sum_held(conn: AsyncConnection, *, but: Collection[UUID]) -> dict[tuple[str, str], int]:
    """Return what lies on held accounts for deposits other than *but*, by party and asset.

    That is what is held, and what a refund would have given back that came to nothing.
    """
    table = tables.deposit
    came_back = and_(
        table.c.state == DepositState.REFUNDING,
        payout.c.state.in_(CAME_BACK),
    )
    amount = func.sum(func.coalesce(table.c.received, table.c.amount))
    query = (
        select(table.c.party, table.c.asset, amount.label("amount"))
        .select_from(table.outerjoin(payout, payout.c.id == table.c.refund))
        .where(or_(table.c.state == DepositState.HELD, came_back), table.c.id.not_in(sorted(but)))
        .group_by(table.c.party, table.c.asset)
    )
    return {(row.party, row.asset): int(row.amount) for row in await conn.execute(query)}


async def get_arrival(
    conn: AsyncConnection, kind: type[A], arrival_id: UUID, *, lock: bool = False
) -> A:
    """Return an arrival, locked if asked.

    Raises:
        UnknownRow: there is none with that id.
    """
    table = _TABLES[kind]
    query = select(table).where(table.c.id == arrival_id)
    found = await _arrivals(conn, kind, query.with_for_update() if lock else query)
    if not found:
        raise UnknownRow(f"there is no {table.name} {arrival_id}", where="custody")
    return found[0]


async def list_arrivals(
    conn: AsyncConnection,
    kind: type[A],
    *,
    chain: str | None = None,
    state: str | None = None,
    party: str | None = None,
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[A]:
    """Return a page of arrivals in the order of their ids, which is that of first sight."""
    table = _TABLES[kind]
    conditions: list[ColumnElement[bool]] = []
    if chain is not None:
        conditions.append(table.c.chain == chain)
    if state is not None:
        conditions.append(table.c.state == state)
    if party is not None:
        conditions.append(table.c.party == party)
    if after is not None:
        conditions.append(table.c.id > after)
    query = select(table).where(*conditions).order_by(table.c.id).limit(min(limit, PAGE_MAX))
    return await _arrivals(conn, kind, query)


async def insert_attribution(conn: AsyncConnection, new: Attribution) -> None:
    """Write two people's statement."""
    values = {f.name: getattr(new, f.name) for f in fields(Attribution)}
    await conn.execute(insert(tables.attribution).values(values))


async def list_attributions(conn: AsyncConnection, deposit_id: UUID) -> list[Attribution]:
    """Return the statements about a deposit, the first one first."""
    table = tables.attribution
    query = select(table).where(table.c.deposit_id == deposit_id).order_by(table.c.epoch)
    return [Attribution(*row) for row in await conn.execute(query)]


def _is_somebodys(table: Table) -> ColumnElement[bool]:
    """Return the condition that an arrival of somebody's is not at an address that was withheld since."""
    named = tables.address
    skipped = exists().where(
        named.c.chain == table.c.chain,
        named.c.address == table.c.address,
        named.c.purpose == AddressPurpose.SKIPPED,
    )
    return or_(table.c.party.is_(None), ~skipped)


def _one_of(column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    """Return the condition with one parameter: a full block has more values than a statement may."""
    return column == any_(literal(sorted(values), ARRAY(Text)))


async def _arrivals(conn: AsyncConnection, kind: type[A], query: Select[Any]) -> list[A]:
    rows = (await conn.execute(query)).all()
    if kind is Deposit:
        return [_deposit(row) for row in rows]  # type: ignore[misc]  # kind is the type variable
    return [_receipt(row) for row in rows]  # type: ignore[misc]  # kind is the type variable


def _values(arrival: Deposit | Receipt, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    values = {f.name: getattr(arrival, f.name) for f in fields(arrival) if f.name not in leave_out}
    return values | {"postings": list(arrival.postings)}


def address_values(item: Address) -> dict[str, Any]:
    """Return the columns of an address; a skipped one is somebody's, and nobody knows whose."""
    values = {f.name: getattr(item, f.name) for f in fields(Address)}
    return values | ({"party": ""} if item.purpose is AddressPurpose.SKIPPED else {})


def _address(row: Row[Any]) -> Address:
    values = dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
    return Address(**values | {"purpose": AddressPurpose(row.purpose), "party": row.party or None})


def _deposit(row: Row[Any]) -> Deposit:
    values = dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
    return Deposit(
        **values
        | {
            "postings": tuple(row.postings),
            "state": DepositState(row.state),
            "kind": DepositKind(row.kind),
            "source": SourceClass(row.source),
        }
    )


def _receipt(row: Row[Any]) -> Receipt:
    values = dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
    return Receipt(**values | {"postings": tuple(row.postings), "state": ReceiptState(row.state)})
