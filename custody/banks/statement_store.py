"""Rows of files, statements, entries and receipts to values and back. Private."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, any_, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import (
    BankFile,
    BankFileState,
    BankReceipt,
    BankReceiptKind,
    BankReceiptState,
    KeptStatement,
)
from custody.banks.statement_tables import bank_entry, bank_file, bank_receipt, bank_statement
from custody.errors import UnknownRow
from kernel.rows import insert_new_rows, insert_rows, update_rows

PAGE_MAX: Final = 500
CHAIN_MAX: Final = 2_000
"""Statements of one account that are looked through at once: more than seven years of days."""
CANDIDATES_MAX: Final = 10_000
"""Credits that are looked through for those that a bank has taken back."""

#: The bytes may be many, and are asked for by name.
_FILE: Final[tuple[Any, ...]] = tuple(item for item in bank_file.c if item.name != "raw")
_SIZE: Final = func.octet_length(bank_file.c.raw).label("size")
_ACCOUNTS: Final = bindparam("accounts", type_=ARRAY(Text))
_KEYS: Final = bindparam("keys", type_=ARRAY(Text))
_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))


# Files.


async def insert_file(conn: AsyncConnection, item: BankFile, raw: bytes) -> bool:
    """Insert a file; False where the same bytes are there already (waits for who inserts them)."""
    values = {f.name: getattr(item, f.name) for f in fields(BankFile) if f.name != "size"}
    done = await conn.execute(insert(bank_file).values(**values, raw=raw).on_conflict_do_nothing())
    return done.rowcount == 1


async def find_file(conn: AsyncConnection, sha256: str) -> BankFile | None:
    """Return the file with these bytes."""
    row = (
        await conn.execute(select(*_FILE, _SIZE).where(bank_file.c.sha256 == sha256))
    ).one_or_none()
    return None if row is None else _file(row)


async def get_file(conn: AsyncConnection, file_id: UUID, *, lock: bool = False) -> BankFile:
    """Return a file.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(*_FILE, _SIZE).where(bank_file.c.id == file_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no bank file {file_id}")
    return _file(row)


async def read_raw(conn: AsyncConnection, file_id: UUID) -> bytes:
    """Return the bytes of a file as they came."""
    raw = await conn.scalar(select(bank_file.c.raw).where(bank_file.c.id == file_id))
    if raw is None:
        raise UnknownRow(f"there is no bank file {file_id}")
    return bytes(raw)


async def update_file(conn: AsyncConnection, item: BankFile) -> None:
    """Write a locked file."""
    await conn.execute(
        update(bank_file)
        .where(bank_file.c.id == item.id)
        .values(state=str(item.state), reason=item.reason, format=item.format, version=item.version)
    )


async def list_files(
    conn: AsyncConnection, *, state: BankFileState | None, after: UUID | None, limit: int
) -> list[BankFile]:
    """Return a page of files, oldest first."""
    query = select(*_FILE, _SIZE)
    if state is not None:
        query = query.where(bank_file.c.state == str(state))
    if after is not None:
        query = query.where(bank_file.c.id > after)
    rows = await conn.execute(query.order_by(bank_file.c.id).limit(min(limit, PAGE_MAX)))
    return [_file(row) for row in rows]


# Statements.


async def insert_statement(conn: AsyncConnection, item: KeptStatement) -> bool:
    """Insert a statement; False where the account has one of that name, or of that day and number."""
    values = {f.name: getattr(item, f.name) for f in fields(KeptStatement)}
    done = await conn.execute(insert(bank_statement).values(**values).on_conflict_do_nothing())
    return done.rowcount == 1


async def find_same(conn: AsyncConnection, item: KeptStatement) -> KeptStatement | None:
    """Return the statement that is in the way of this one."""
    table = bank_statement
    by_name = (
        (table.c.account == item.account)
        & (table.c.kind == item.kind)
        & (table.c.name == item.name)
    )
    by_day = (
        (table.c.account == item.account)
        & (table.c.kind == "statement")
        & (table.c.to_date == item.to_date)
        & table.c.sequence.is_not_distinct_from(item.sequence)
    )
    where = by_name if item.kind != "statement" else by_name | by_day
    row = (await conn.execute(select(table).where(where).limit(1))).one_or_none()
    return None if row is None else _statement(row)


async def get_statement(conn: AsyncConnection, statement_id: UUID) -> KeptStatement:
    """Return a statement.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(bank_statement).where(bank_statement.c.id == statement_id)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no bank statement {statement_id}")
    return _statement(row)


async def list_statements(
    conn: AsyncConnection,
    *,
    account: str | None = None,
    kind: str | None = None,
    file_id: UUID | None = None,
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[KeptStatement]:
    """Return a page of statements in the order of their days."""
    table = bank_statement
    query = select(table)
    if account is not None:
        query = query.where(table.c.account == account)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    if file_id is not None:
        query = query.where(table.c.file_id == file_id)
    if after is not None:
        query = query.where(table.c.id > after)
    rows = await conn.execute(query.order_by(table.c.id).limit(min(limit, PAGE_MAX)))
    return [_statement(row) for row in rows]


async def list_chain(conn: AsyncConnection, account: str) -> list[KeptStatement]:
    """Return the account's newest statements between balances, oldest first."""
    table = bank_statement
    rows = await conn.execute(
        select(table)
        .where(table.c.account == account, table.c.kind == "statement")
        .order_by(table.c.to_date.desc(), table.c.sequence.desc().nulls_last(), table.c.id.desc())
        .limit(CHAIN_MAX)
    )
    return [_statement(row) for row in rows][::-1]


async def newest_days(conn: AsyncConnection) -> dict[str, date]:
    """Return the day of the newest statement of each account that has any."""
    table = bank_statement
    rows = await conn.execute(
        select(table.c.account, func.max(table.c.to_date).label("day"))
        .where(table.c.kind == "statement")
        .group_by(table.c.account)
    )
    return {row.account: row.day for row in rows}


async def list_accounts(conn: AsyncConnection) -> list[str]:
    """Return the codes of the accounts that have statements."""
    rows = await conn.execute(
        select(bank_statement.c.account).distinct().order_by(bank_statement.c.account)
    )
    return list(rows.scalars())


# Entries.


async def insert_entries(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert those entries that are not there yet; return their ids."""
    return {UUID(str(key)) for key in await insert_new_rows(conn, bank_entry, rows)}


async def list_stated_elsewhere(
    conn: AsyncConnection, wanted: Mapping[tuple[str, str], KeptStatement]
) -> set[tuple[str, str]]:
    """Return those (account, key) that are an entry of a statement of other days than *wanted* says."""
    table, other = bank_entry, bank_statement
    rows = await conn.execute(
        select(table.c.account, table.c.key, other.c.from_date, other.c.to_date)
        .join(other, other.c.id == table.c.statement_id)
        .where(
            table.c.account == any_(_ACCOUNTS),
            table.c.key == any_(_KEYS),
            other.c.kind == "statement",
        ),
        {
            _ACCOUNTS.key: sorted({account for account, _ in wanted}),
            _KEYS.key: sorted({key for _, key in wanted}),
        },
    )
    return {
        (row.account, row.key)
        for row in rows
        if (item := wanted.get((row.account, row.key))) is not None
        and (row.to_date < item.from_date or row.from_date > item.to_date)
    }


async def sum_entries_after(conn: AsyncConnection, account: str, day: date) -> int:
    """Return what was booked in an account after a day, in smallest units, with its sign."""
    total = await conn.scalar(
        select(func.coalesce(func.sum(bank_entry.c.amount), 0)).where(
            bank_entry.c.account == account, bank_entry.c.booking_date > day
        )
    )
    return int(total or 0)


async def list_entries(
    conn: AsyncConnection, statement_id: UUID, *, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return a page of the entries that a statement brought first, as their columns."""
    query = select(bank_entry).where(bank_entry.c.statement_id == statement_id)
    if after is not None:
        query = query.where(bank_entry.c.id > after)
    rows = await conn.execute(query.order_by(bank_entry.c.id).limit(min(limit, PAGE_MAX)))
    return [dict(row._mapping) for row in rows]  # noqa: SLF001  the public name of a row's mapping


# Receipts.


async def insert_receipts(conn: AsyncConnection, items: Sequence[BankReceipt]) -> None:
    """Insert new receipts."""
    rows = [{f.name: getattr(item, f.name) for f in fields(BankReceipt)} for item in items]
    if rows:
        await insert_rows(conn, bank_receipt, rows)


async def get_receipt(
    conn: AsyncConnection, receipt_id: UUID, *, lock: bool = False
) -> BankReceipt:
    """Return a receipt.

    Raises:
        UnknownRow: there is none with that id.
    """
    found = await get_receipts(conn, [receipt_id], lock=lock)
    if not found:
        raise UnknownRow(f"there is no bank receipt {receipt_id}")
    return found[0]


async def get_receipts(
    conn: AsyncConnection, ids: Collection[UUID], *, lock: bool = False
) -> list[BankReceipt]:
    """Return those of these receipts that exist, by id."""
    query = select(bank_receipt).where(bank_receipt.c.id == any_(_IDS)).order_by(bank_receipt.c.id)
    rows = await conn.execute(query.with_for_update() if lock else query, {_IDS.key: sorted(ids)})
    return [_receipt(row) for row in rows]


async def list_receipts(
    conn: AsyncConnection,
    book: int,
    *,
    state: BankReceiptState | None,
    kinds: Collection[BankReceiptKind],
    account: str | None,
    after: UUID | None,
    limit: int,
) -> list[BankReceipt]:
    """Return a page of receipts by id, which is by booking date."""
    table = bank_receipt
    query = select(table).where(
        table.c.book == book, table.c.kind.in_([str(kind) for kind in kinds])
    )
    if state is not None:
        query = query.where(table.c.state == str(state))
    if account is not None:
        query = query.where(table.c.account == account)
    if after is not None:
        query = query.where(table.c.id > after)
    rows = await conn.execute(query.order_by(table.c.id).limit(min(limit, PAGE_MAX)))
    return [_receipt(row) for row in rows]


async def lock_candidates(
    conn: AsyncConnection, account: str, values: Collection[int]
) -> list[BankReceipt]:
    """Lock the credits of an account with one of these values that nothing has taken back yet.

    Where there are `CANDIDATES_MAX` or more, there may be others.
    """
    table, other = bank_receipt, bank_receipt.alias("other")
    recalled = select(other.c.id).where(other.c.recalls == table.c.id)
    rows = await conn.execute(
        select(table)
        .where(
            table.c.account == account,
            table.c.value.in_(list(values)),
            table.c.kind == str(BankReceiptKind.RECEIPT),
            table.c.state != str(BankReceiptState.RETURNED),
            ~recalled.exists(),
        )
        .order_by(table.c.id)
        .limit(CANDIDATES_MAX)
        .with_for_update()
    )
    return [_receipt(row) for row in rows]


async def update_receipts(conn: AsyncConnection, items: Sequence[BankReceipt]) -> None:
    """Write locked receipts, in one statement."""
    rows = [
        {
            "id": item.id,
            "state": str(item.state),
            "party": item.party,
            "matched_to": item.matched_to,
            "version": item.version,
        }
        for item in items
    ]
    written = await update_rows(conn, bank_receipt, rows)
    assert written == len(rows), f"{len(rows) - written} bank receipts are gone"


def _file(row: Row[*tuple[Any, ...]]) -> BankFile:
    return BankFile(**{**row._mapping, "state": BankFileState(row.state)})  # noqa: SLF001  the public name of a row's mapping


def _statement(row: Row[Any]) -> KeptStatement:
    return KeptStatement(**row._mapping)  # noqa: SLF001  the public name of a row's mapping


def _receipt(row: Row[Any]) -> BankReceipt:
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
    return BankReceipt(
        **{
            **values,
            "kind": BankReceiptKind(row.kind),
            "state": BankReceiptState(row.state),
        }
    )
