"""Reading what banks have sent: files, statements, entries, gaps, and the last balance of an account."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.continuity import Gap, Link, gaps
from custody.banks import statement_store as store
from custody.banks.entry_model import BankFile, BankFileState, KeptStatement
from custody.errors import NotPossible
from kernel.events import DomainEvent, list_history


class StatementGap(NotPossible):
    """Something of an account is missing: its balances are not to be compared with anything."""


@dataclass(frozen=True, slots=True)
class BankBalance:
    """What the bank says is in an account at the end of a day.

    Attributes:
        statement_id, name: the statement that says so.
    """

    account: str
    asset: str
    day: date
    closing: int
    statement_id: UUID
    name: str


async def list_bank_statements(
    conn: AsyncConnection,
    *,
    account: str | None = None,
    file_id: UUID | None = None,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[KeptStatement]:
    """Return a page of statements and notices, in the order in which they came."""
    return await store.list_statements(
        conn, account=account, file_id=file_id, after=after, limit=limit
    )


async def get_bank_statement(conn: AsyncConnection, statement_id: UUID) -> KeptStatement:
    """Return a statement.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_statement(conn, statement_id)


async def list_bank_entries(
    conn: AsyncConnection,
    statement_id: UUID,
    *,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[dict[str, Any]]:
    """Return a page of the entries that a statement was the first to bring."""
    return await store.list_entries(conn, statement_id, after=after, limit=limit)


async def list_bank_files(
    conn: AsyncConnection,
    *,
    state: BankFileState | None = None,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[BankFile]:
    """Return a page of files in the order in which they came."""
    return await store.list_files(conn, state=state, after=after, limit=limit)


async def get_bank_file(conn: AsyncConnection, file_id: UUID) -> tuple[BankFile, bytes]:
    """Return a file and its bytes as they came.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_file(conn, file_id), await store.read_raw(conn, file_id)


async def explain_bank_file(conn: AsyncConnection, file_id: UUID) -> list[DomainEvent]:
    """Return the life of a file, oldest event first."""
    return await list_history(conn, "bank-file", file_id)


async def list_gaps(
    conn: AsyncConnection, accounts: Collection[str] | None = None
) -> list[tuple[str, Gap]]:
    """Return where something is missing, by account (None: all) and day."""
    named = await store.list_accounts(conn) if accounts is None else sorted(set(accounts))
    return [
        (account, gap)
        for account in named
        for gap in gaps(_links(await store.list_chain(conn, account)))
    ]


async def gaps_at(
    conn: AsyncConnection, account: str, names: Collection[str]
) -> list[tuple[str, Gap]]:
    """Return the gaps of an account on either side of these statements."""
    return [
        (account, gap)
        for _, gap in await list_gaps(conn, [account])
        if gap.before.name in names or gap.after.name in names
    ]


async def require_continuous(conn: AsyncConnection, account: str) -> None:
    """Refuse where something of the account is missing.

    Raises:
        StatementGap: says between which statements.
    """
    found = await list_gaps(conn, [account])
    if found:
        _, gap = found[0]
        raise StatementGap(
            f"statements of {account} are missing: after {gap.before.name} of {gap.before.to_date} "
            f"comes {gap.after.name} of {gap.after.to_date}, and {gap.why}",
            remedy="Ask the bank for what is missing, and take it in",
        )


async def get_bank_balance(
    conn: AsyncConnection, account: str, *, on: date | None = None
) -> BankBalance | None:
    """Return what the bank says is in the account at the end of *on*, or of the newest day before.

    Raises:
        StatementGap: something of the account is missing, so the figure is not to be believed.
    """
    await require_continuous(conn, account)
    chain = await store.list_chain(conn, account)
    found = [item for item in chain if on is None or item.to_date <= on]
    if not found:
        return None
    last = found[-1]
    assert last.closing is not None
    return BankBalance(account, last.asset, last.to_date, last.closing, last.id, last.name)


async def sum_entries_after(conn: AsyncConnection, account: str, day: date) -> int:
    """Return what was booked in an account after a day, in smallest units: notices came first."""
    return await store.sum_entries_after(conn, account, day)


async def newest_statement_days(conn: AsyncConnection) -> dict[str, date]:
    """Return up to which day the bank has told of each account that it ever told of."""
    return await store.newest_days(conn)


def _links(items: Sequence[KeptStatement]) -> list[Link]:
    return [
        Link(item.name, item.sequence, item.from_date, item.to_date, item.opening, item.closing)
        for item in items
        if item.opening is not None and item.closing is not None
    ]
