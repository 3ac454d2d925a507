"""Taking in a file from a bank: its bytes are kept, what it says is booked once, or it is put aside.

One transaction for one file. The same bytes again, the same statement in another file, and an entry that
a notice has brought before are nothing new, also where two processes take them in at the same time:
unique columns decide, and whoever is second waits for the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.errors import FileUnreadable
from banks.reading import in_units, parse_file
from banks.safe_xml import BYTES_MAX
from banks.statement_model import Statement
from custody.banks import statement_store as store
from custody.banks.entry_books import IMPORTER, book_entries, write_entries
from custody.banks.entry_model import (
    BANK_FILE_STATES,
    REASON_LENGTH_MAX,
    BankFile,
    BankFileState,
    BankReceipt,
    KeptStatement,
)
from custody.banks.payments import BankPayments
from custody.banks.statement_ports import Payments
from custody.banks.statements import gaps_at
from custody.errors import NotPossible
from custody.model import bank_account_path
from custody.restore_gate import require_facts_wanted
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.model import BankAccount
from registry.queries import list_assets, list_bank_accounts, list_entities

ENTITY: Final = "bank-file"
NAME_LENGTH_MAX: Final = 200
UNREAD: Final = "unread"

# The library writes every line that it does not understand into the log, names and accounts and all; the
# file is in quarantine then, with its bytes.
logging.getLogger("mt940").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What a file says, or why it cannot be believed, before anything is asked of the database.

    Attributes:
        sha256: of its bytes, in hexadecimal.
        statements: with amounts as `banks.reading.parse_file` has them.
    """

    sha256: str
    format: str = UNREAD
    statements: tuple[Statement, ...] = ()
    wrong: FileUnreadable | None = None


def parse_bank_file(raw: bytes) -> ParsedFile:
    """Parse a file. It may take seconds: call it before the transaction, and not in an event loop."""
    digest = hashlib.sha256(raw).hexdigest()
    try:
        form, statements = parse_file(raw)
    except FileUnreadable as error:
        return ParsedFile(digest, wrong=error)
    return ParsedFile(digest, str(form), statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a file.

    Attributes:
        new: False where the same bytes had come before.
        statements: those that were new.
        known: names of statements that had come before, in another file.
        booked: entries that were new.
        receipts: what waits in suspense since.
        gaps: why an account's statements do not follow one another, in words.
    """

    file: BankFile
    new: bool = True
    statements: tuple[KeptStatement, ...] = ()
    known: tuple[str, ...] = ()
    booked: int = 0
    pending: int = 0
    receipts: tuple[BankReceipt, ...] = ()
    gaps: tuple[str, ...] = ()


async def import_file(
    conn: AsyncConnection,
    raw: bytes,
    *,
    name: str,
    by: str = IMPORTER,
    payments: Payments | None = None,
    parsed: ParsedFile | None = None,
    now: datetime,
) -> ImportReport:
    """Take in a file; one that cannot be believed is kept in quarantine and posts nothing.

    Args:
        raw: the bytes as they came.
        name: what the file is called, for people.
        by: operator id, or ``system:<process>``.
        payments: whoever knows our own payments; the house's own desk unless another is given.
        parsed: of these bytes. Whoever has asked the database anything in this transaction gives it: a
            long file takes seconds, and PostgreSQL ends a transaction that is idle for so long.

    Raises:
        BadInput: larger than any file of a bank: it is not kept.
        Frozen: the database was restored, and what it has sent is not known again.
    """
    if len(raw) > BYTES_MAX:
        raise BadInput(f"{name} has {len(raw)} bytes, more than {BYTES_MAX}")
    if parsed is None:
        parsed = await asyncio.to_thread(parse_bank_file, raw)
    await require_facts_wanted(conn)
    file = BankFile(
        id=derive_id(now, "bank-file", parsed.sha256),
        name=name[:NAME_LENGTH_MAX],
        sha256=parsed.sha256,
        size=len(raw),
        format=parsed.format,
        state=BankFileState.IMPORTED,
        reason="",
        received_by=by,
        received_at=now,
    )
    try:
        read = await _read(conn, parsed)
        async with conn.begin_nested():
            return await _take_in(conn, file, raw, read, payments or BankPayments(), now)
    except FileUnreadable as error:
        return await _put_aside(conn, file, raw, str(error), now)


async def find_bank_file(conn: AsyncConnection, raw: bytes) -> BankFile | None:
    """Return the file that has these bytes, if they came before."""
    return await store.find_file(conn, hashlib.sha256(raw).hexdigest())


async def reread_file(
    conn: AsyncConnection,
    file_id: UUID,
    parsed: ParsedFile,
    *,
    by: str,
    payments: Payments | None = None,
    now: datetime,
) -> ImportReport:
    """Read a file in quarantine again: an account or asset may be registered since.

    Args:
        parsed: of its bytes (`custody.banks.statements.get_bank_file`), from before this transaction.

    Raises:
        NotPossible: it is not in quarantine, or *parsed* is of another file.
        FileUnreadable: it still cannot be believed, and stays where it is.
    """
    before = await _lock_quarantined(conn, file_id)
    if parsed.sha256 != before.sha256:
        raise NotPossible(f"what was parsed is not bank file {before.id}")
    read = await _read(conn, parsed)
    after = replace(
        before,
        state=BankFileState.IMPORTED,
        format=parsed.format,
        reason="",
        version=before.version + 1,
    )
    BANK_FILE_STATES.require(before.state, after.state)
    await store.update_file(conn, after)
    return await _book(conn, after, read, payments or BankPayments(), by, now)


async def dismiss_file(
    conn: AsyncConnection, file_id: UUID, *, by: str, reason: str, now: datetime
) -> BankFile:
    """Say that a file in quarantine stays out of the books; its bytes are kept.

    Raises:
        NotPossible: it is not in quarantine.
        BadInput: no reason.
    """
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    before = await _lock_quarantined(conn, file_id)
    after = replace(
        before, state=BankFileState.DISMISSED, reason=reason, version=before.version + 1
    )
    BANK_FILE_STATES.require(before.state, after.state)
    await store.update_file(conn, after)
    await record(conn, [_file_event(before, after, "BankFileDismissed", by, now)])
    return after


_Read = tuple[tuple[Statement, BankAccount, int], ...]
"""(statement, account, book), in the order in which they are written; all of one book."""


async def _read(conn: AsyncConnection, parsed: ParsedFile) -> _Read:
    if parsed.wrong is not None:
        raise parsed.wrong
    assets = {asset.code: asset for asset in await list_assets(conn)}
    accounts = {(item.iban, item.asset): item for item in await list_bank_accounts(conn)}
    books = {item.code: item.book for item in await list_entities(conn)}
    statements = []
    ours = [in_units(item, assets) for item in parsed.statements]
    for statement in sorted(
        ours, key=lambda item: (item.account, item.to_date, item.sequence or 0)
    ):
        account = accounts.get((statement.account, statement.asset))
        if account is None:
            raise FileUnreadable(
                f"{statement.account} in {statement.asset} is no bank account of ours",
                remedy="Register it, and read the file again: causeway bank statement reread",
            )
        statements.append((statement, account, books[account.entity]))
    if len({book for _, _, book in statements}) > 1:
        raise FileUnreadable(
            "the file has accounts of several of our legal entities",
            remedy="Ask the bank for one file each",
        )
    return tuple(statements)


async def _take_in(
    conn: AsyncConnection,
    file: BankFile,
    raw: bytes,
    read: _Read,
    payments: Payments,
    now: datetime,
) -> ImportReport:
    if not await store.insert_file(conn, file, raw):
        return await _known(conn, file)
    return await _book(conn, file, read, payments, file.received_by, now)


async def _put_aside(
    conn: AsyncConnection, file: BankFile, raw: bytes, why: str, now: datetime
) -> ImportReport:
    kept = replace(file, state=BankFileState.QUARANTINED, reason=why[:REASON_LENGTH_MAX])
    if not await store.insert_file(conn, kept, raw):
        return await _known(conn, file)
    await record(conn, [_file_event(None, kept, "BankFileQuarantined", file.received_by, now)])
    return ImportReport(file=kept)


async def _known(conn: AsyncConnection, file: BankFile) -> ImportReport:
    found = await store.find_file(conn, file.sha256)
    assert found is not None
    return ImportReport(file=found, new=False)


async def _book(
    conn: AsyncConnection,
    file: BankFile,
    read: _Read,
    payments: Payments,
    by: str,
    now: datetime,
) -> ImportReport:
    """Write what is new of a file whose row is locked, and post it."""
    kept, known = [], []
    for statement, account, book in read:
        item = _kept(file, statement, account, book, now)
        if await store.insert_statement(conn, item):
            kept.append((item, statement))
        else:
            await _require_same(conn, item)
            known.append(item.name)
    new = await write_entries(conn, kept)
    receipts = await book_entries(conn, new, await _owners(conn), payments, now=now)
    broken = [
        gap
        for account in sorted({item.account for item, _ in kept})
        for gap in await gaps_at(conn, account, {item.name for item, _ in kept})
    ]
    words = tuple(
        f"{account}: after {gap.before.name} comes {gap.after.name}: {gap.why}"
        for account, gap in broken
    )
    name = "BankFileImported" if not words else "BankStatementGap"
    await record(
        conn, [_file_event(None, file, name, by, now, "; ".join(words)[:REASON_LENGTH_MAX])]
    )
    return ImportReport(
        file=file,
        statements=tuple(item for item, _ in kept),
        known=tuple(known),
        booked=len(new),
        pending=sum(len(s.entries) - len(s.booked) for _, s in kept),
        receipts=tuple(receipts),
        gaps=words,
    )


async def _owners(conn: AsyncConnection) -> dict[str, str]:
    return {bank_account_path(item.code): item.owner for item in await list_bank_accounts(conn)}


async def _require_same(conn: AsyncConnection, item: KeptStatement) -> None:
    """Refuse a statement that takes the place of one that says something else."""
    found = await store.find_same(conn, item)
    if found is None or _place(found) != _place(item):
        raise FileUnreadable(
            f"{item.account} has a statement of {item.to_date} with that number that says "
            "something else",
            where=item.name,
            remedy="Ask the bank which of the two holds",
        )


def _place(item: KeptStatement) -> tuple[object, ...]:
    """Return what two messages of the same statement have in common."""
    if item.opening is None:
        return (item.name,)
    return item.to_date, item.sequence, item.opening, item.closing


async def _lock_quarantined(conn: AsyncConnection, file_id: UUID) -> BankFile:
    found = await store.get_file(conn, file_id, lock=True)
    if found.state is not BankFileState.QUARANTINED:
        raise NotPossible(f"bank file {found.id} is {found.state}, not in quarantine")
    return found


def _kept(
    file: BankFile, statement: Statement, account: BankAccount, book: int, now: datetime
) -> KeptStatement:
    return KeptStatement(
        id=derive_id(now, "bank-statement", account.code, str(statement.kind), statement.id),
        file_id=file.id,
        book=book,
        account=account.code,
        kind=str(statement.kind),
        name=statement.id,
        sequence=statement.sequence,
        asset=statement.asset,
        opening=statement.opening,
        closing=statement.closing,
        from_date=statement.from_date,
        to_date=statement.to_date,
        entries=len(statement.booked),
        imported_at=now,
    )


def _file_event(
    before: BankFile | None,
    after: BankFile,
    name: str,
    by: str,
    now: datetime,
    reason: str = "",
) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=after.version,
        name=name,
        at=now,
        actor=by,
        reason=reason or after.reason,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={"sha256": after.sha256, "size": after.size, "format": after.format},
    )
