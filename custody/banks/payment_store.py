"""Rows of payment files, lines, approvals and reports, and back. Private."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, any_, func, insert, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.payment_model import (
    PROMISED,
    UNRELEASED,
    WORKED_ON,
    FileApproval,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
)
from custody.banks.payment_tables import (
    payment_approval,
    payment_file,
    payment_line,
    payment_report,
)
from custody.errors import UnknownRow
from custody.payout_model import Payout, PayoutState
from custody.payout_store import to_payout
from custody.payout_tables import payout
from kernel.leases import claim, require_one
from kernel.rows import insert_rows, update_rows
from registry.model import BANK

PAGE_MAX: Final = 200

_FILE_NAMES: Final = tuple(PaymentFile.__dataclass_fields__)
_FILE: Final = [payment_file.c[name] for name in _FILE_NAMES]
_LINE_NAMES: Final = tuple(PaymentLine.__dataclass_fields__)
_LINE: Final = [payment_line.c[name] for name in _LINE_NAMES]
_STANDING: Final = payment_line.c.state != LineState.DISCARDED


async def insert_file(
    conn: AsyncConnection, file: PaymentFile, lines: Sequence[PaymentLine]
) -> None:
    """Insert a file and its lines; the payouts of the lines are locked."""
    await conn.execute(
        insert(payment_file).values({name: getattr(file, name) for name in _FILE_NAMES})
    )
    names = [name for name in _LINE_NAMES if name not in {"booked_entry", "returned_entry"}]
    await insert_rows(
        conn, payment_line, [{name: getattr(item, name) for name in names} for item in lines]
    )


async def get_file(conn: AsyncConnection, file_id: UUID, *, lock: bool = False) -> PaymentFile:
    """Return a file, its row locked if asked for.

    Raises:
        UnknownRow: there is none with that id.
    """
    query = select(*_FILE).where(payment_file.c.id == file_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no payment file {file_id}")
    return _file(row)


async def find_file(
    conn: AsyncConnection, message_id: str, *, lock: bool = False
) -> PaymentFile | None:
    """Return the file that a bank knows by *message_id*."""
    query = select(*_FILE).where(payment_file.c.message_id == message_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _file(row)


async def list_files(
    conn: AsyncConnection,
    *,
    book: int | None = None,
    account: str | None = None,
    states: Collection[FileState] | None = None,
    after: PaymentFile | None = None,
    limit: int = PAGE_MAX,
) -> list[PaymentFile]:
    """Return a page of files, oldest first; *after* is the last one of the page before."""
    query = select(*_FILE).order_by(payment_file.c.drafted_at, payment_file.c.id)
    if book is not None:
        query = query.where(payment_file.c.book == book)
    if account is not None:
        query = query.where(payment_file.c.account == account)
    if states is not None:
        query = query.where(payment_file.c.state.in_([str(state) for state in states]))
    if after is not None:
        place = tuple_(payment_file.c.drafted_at, payment_file.c.id)
        query = query.where(place > tuple_(after.drafted_at, after.id))
    return [_file(row) for row in await conn.execute(query.limit(min(limit, PAGE_MAX)))]


async def claim_files(
    conn: AsyncConnection,
    book: int,
    *,
    holder: str,
    now: datetime,
    lease_for: timedelta,
    limit: int,
) -> list[PaymentFile]:
    """Claim files that the worker has something to do with."""
    rows = await claim(
        conn,
        payment_file,
        where=(payment_file.c.book == book)
        & payment_file.c.state.in_([str(state) for state in WORKED_ON])
        & (payment_file.c.run_after <= now),
        order_by=(payment_file.c.run_after, payment_file.c.id),
        holder=holder,
        now=now,
        lease_for=lease_for,
        limit=limit,
    )
    return [_file(row) for row in rows]


async def give_back(
    conn: AsyncConnection, file: PaymentFile, *, waiting_for: str | None, until: datetime
) -> None:
    """End the lease of a file, unless another worker has it; None: it does not wait."""
    values: dict[str, object] = {"lease_holder": None, "lease_until": None}
    if waiting_for is not None:
        values |= {"waiting_for": waiting_for, "run_after": until}
    await conn.execute(
        update(payment_file)
        .where(payment_file.c.id == file.id, payment_file.c.fence == file.fence)
        .values(values)
    )


async def list_lapsed(
    conn: AsyncConnection, book: int, *, now: datetime, limit: int = PAGE_MAX
) -> list[UUID]:
    """Return files not released yet of which a payment's time is over."""
    rows = await conn.execute(
        select(payment_file.c.id)
        .join(payment_line, payment_line.c.file_id == payment_file.c.id)
        .join(payout, payout.c.id == payment_line.c.payout_id)
        .where(
            payment_file.c.book == book,
            payment_file.c.state.in_([str(state) for state in UNRELEASED]),
            payment_line.c.state == LineState.WRITTEN,
            payout.c.expires_at <= now,
        )
        .distinct()
        .order_by(payment_file.c.id)
        .limit(limit)
    )
    return list(rows.scalars())


async def update_file(
    conn: AsyncConnection, file_id: UUID, *, fence: int | None = None, **values: object
) -> None:
    """Write a file; with *fence*, only while no other worker has claimed it.

    Raises:
        StaleFence: it was claimed since.
    """
    statement = update(payment_file).where(payment_file.c.id == file_id)
    if fence is not None:
        statement = statement.where(payment_file.c.fence == fence)
    require_one(await conn.execute(statement.values(**values)), f"payment file {file_id}")


async def doubt_copies(conn: AsyncConnection) -> None:
    """Count a copy more of every file that has not ended: one may have left that was not counted."""
    ended = [str(FileState.CLOSED), str(FileState.DISCARDED)]
    await conn.execute(
        update(payment_file)
        .where(payment_file.c.state.not_in(ended))
        .values(submissions=payment_file.c.submissions + 1)
    )


async def list_lines(conn: AsyncConnection, file_id: UUID) -> list[PaymentLine]:
    """Return the lines of a file, in their order."""
    query = select(*_LINE).where(payment_line.c.file_id == file_id).order_by(payment_line.c.number)
    return [_line(row) for row in await conn.execute(query)]


async def find_lines(
    conn: AsyncConnection, end_to_ends: Collection[str]
) -> dict[str, tuple[PaymentLine, PaymentFile]]:
    """Return the standing lines among EndToEndIds, with their files."""
    if not end_to_ends:
        return {}
    wanted = literal(sorted(end_to_ends), ARRAY(Text))
    rows = await conn.execute(
        select(*_LINE).where(payment_line.c.end_to_end == any_(wanted), _STANDING)
    )
    lines = [_line(row) for row in rows]
    files = {
        row.id: _file(row)
        for row in await conn.execute(
            select(*_FILE).where(payment_file.c.id.in_({line.file_id for line in lines}))
        )
    }
    return {line.end_to_end: (line, files[line.file_id]) for line in lines}


async def list_returned(
    conn: AsyncConnection, book: int, *, after: UUID | None = None, limit: int = PAGE_MAX
) -> list[PaymentLine]:
    """Return a page of the lines that were booked and came back, by the entry of their return."""
    query = (
        select(*_LINE)
        .join(payment_file, payment_file.c.id == payment_line.c.file_id)
        .where(payment_file.c.book == book, payment_line.c.returned_entry.is_not(None))
        .order_by(payment_line.c.returned_entry)
        .limit(min(limit, PAGE_MAX))
    )
    if after is not None:
        query = query.where(payment_line.c.returned_entry > after)
    return [_line(row) for row in await conn.execute(query)]


async def find_line_of(conn: AsyncConnection, payout_id: UUID) -> PaymentLine | None:
    """Return the line that pays a payout, if a file that stands has it."""
    query = select(*_LINE).where(payment_line.c.payout_id == payout_id, _STANDING)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _line(row)


async def has_left(conn: AsyncConnection, payout_id: UUID) -> bool:
    """Tell whether a file that is out has the payout, so that its claim has been debited."""
    line = await find_line_of(conn, payout_id)
    return line is not None and line.state is not LineState.WRITTEN


async def lock_files(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, PaymentFile]:
    """Return files by id, their rows locked in the order of their ids."""
    wanted = literal(list(ids), ARRAY(Uuid))
    query = select(*_FILE).where(payment_file.c.id == any_(wanted)).order_by(payment_file.c.id)
    return {row.id: _file(row) for row in await conn.execute(query.with_for_update())}


async def update_lines(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write lines, each with its ``file_id`` and ``number`` and the same changes; files are locked."""
    await update_rows(conn, payment_line, rows, key=("file_id", "number"))


async def count_open_lines(conn: AsyncConnection, file_id: UUID) -> int:
    """Return how many lines of a file have not ended."""
    count = await conn.scalar(
        select(func.count())
        .select_from(payment_line)
        .where(
            payment_line.c.file_id == file_id,
            payment_line.c.state.in_([str(state) for state in PROMISED]),
        )
    )
    return int(count or 0)


async def sum_promised(conn: AsyncConnection, accounts: Collection[str]) -> dict[str, int]:
    """Return what will still leave each account because a file says so."""
    rows = await conn.execute(
        select(payment_file.c.account, func.sum(payment_line.c.amount).label("amount"))
        .join(payment_line, payment_line.c.file_id == payment_file.c.id)
        .where(
            payment_file.c.account.in_(sorted(accounts)),
            payment_file.c.state.not_in([FileState.CLOSED, FileState.DISCARDED]),
            payment_line.c.state.in_([str(state) for state in PROMISED]),
        )
        .group_by(payment_file.c.account)
    )
    found = {row.account: int(row.amount) for row in rows}
    return {account: found.get(account, 0) for account in accounts}


async def insert_approval(conn: AsyncConnection, approval: FileApproval) -> bool:
    """Insert an approval; False if the operator has given one."""
    values = {name: getattr(approval, name) for name in FileApproval.__dataclass_fields__}
    done = await conn.execute(pg_insert(payment_approval).values(values).on_conflict_do_nothing())
    return done.rowcount == 1


async def list_approvals(conn: AsyncConnection, file_id: UUID) -> list[FileApproval]:
    """Return the approvals of a file, oldest first."""
    query = select(payment_approval).where(payment_approval.c.file_id == file_id)
    rows = await conn.execute(query.order_by(payment_approval.c.at, payment_approval.c.operator))
    return [FileApproval(**row._mapping) for row in rows]  # noqa: SLF001  the public name of a row's mapping


async def list_due(
    conn: AsyncConnection, account: str, book: int, *, now: datetime, limit: int
) -> list[Payout]:
    """Return approved payouts of an account that are in no file, oldest first."""
    rows = await conn.execute(
        select(payout)
        .where(
            payout.c.chain == BANK,
            payout.c.state == PayoutState.APPROVED,
            payout.c.book == book,
            payout.c.source_wallet == account,
            payout.c.run_after <= now,
        )
        .order_by(payout.c.run_after, payout.c.created_at, payout.c.id)
        .limit(limit)
    )
    return [to_payout(row) for row in rows]


async def list_accounts_due(
    conn: AsyncConnection, book: int, *, now: datetime, since: datetime
) -> list[str]:
    """Return the accounts that have approved payouts in no file, one of them older than *since*."""
    rows = await conn.execute(
        select(payout.c.source_wallet)
        .where(
            payout.c.chain == BANK,
            payout.c.state == PayoutState.APPROVED,
            payout.c.book == book,
            payout.c.run_after <= now,
            payout.c.created_at <= since,
        )
        .distinct()
        .order_by(payout.c.source_wallet)
        .limit(PAGE_MAX)
    )
    return list(rows.scalars())


async def find_report(conn: AsyncConnection, sha256: str) -> Row[Any] | None:
    """Return the report with those bytes, if it came before."""
    query = select(payment_report).where(payment_report.c.sha256 == sha256)
    return (await conn.execute(query)).one_or_none()


async def insert_report(conn: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Insert a report unless its bytes are there; tell whether this call did."""
    done = await conn.execute(pg_insert(payment_report).values(values).on_conflict_do_nothing())
    return done.rowcount == 1


async def list_reports(conn: AsyncConnection, *, limit: int = PAGE_MAX) -> list[Row[Any]]:
    """Return the newest reports, without their bytes."""
    columns = [column for column in payment_report.c if column.name != "content"]
    query = select(*columns).order_by(payment_report.c.received_at.desc(), payment_report.c.id)
    return list(await conn.execute(query.limit(min(limit, PAGE_MAX))))


def _file(row: Any) -> PaymentFile:
    values = {name: getattr(row, name) for name in _FILE_NAMES}
    values |= {"content": bytes(row.content), "total": int(row.total)}
    return PaymentFile(**{**values, "state": FileState(row.state)})


def _line(row: Any) -> PaymentLine:
    values = {name: getattr(row, name) for name in _LINE_NAMES}
    return PaymentLine(**{**values, "amount": int(row.amount), "state": LineState(row.state)})
