"""The verbs that write the journal.

`post` works in the caller's transaction. Order of work: lock the head in one statement; read the
clock and the balances in the next ones; decide in Python; write in a fixed number of
statements, whatever the size of the batch. Nothing is decided until the caller commits.

Lock order of callers: take every lock that can be waited for first, then post, then only update rows
already locked, append outbox rows, and commit (`ledger.testing.enforce_lock_order` watches that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger import merkle, statements, store, tables
from ledger.arrays import numbers
from ledger.chart import account_spec
from ledger.decide import EXPIRIES_MAX, decide
from ledger.errors import AccountDiffers, BookNotOpen, PostingRefused
from ledger.form import NIL, may_be_all
from ledger.model import (
    ALL,
    BATCH_MAX,
    TEXT_LENGTH_MAX,
    AccountEventKind,
    AccountSpec,
    PostResult,
    Side,
    Transfer,
    canonical_metadata,
    metadata_hash,
)
from ledger.outcome import Outcome
from ledger.records import account_line
from ledger.state import Request

CODE_LENGTH_MAX: Final = 64
NO_TIME: Final = timedelta(0)


async def open_book(
    conn: AsyncConnection, book: int, *, entity: str, now: datetime | None = None
) -> None:
    """Open the journal of a legal entity; nothing happens if it is open already.

    Raises:
        AccountDiffers: the book belongs to another entity.
    """
    at = now or (await store.run(conn, "SELECT clock_timestamp()"))[0][0]
    await conn.execute(
        insert(tables.head)
        .values(
            book=book,
            entity=entity,
            opened_at=at,
            sequence=0,
            height=0,
            block_time=at,
            account_count=0,
            frontier=merkle.pack([]),
        )
        .on_conflict_do_nothing(index_elements=["book"])
    )
    owner = await conn.scalar(select(tables.head.c.entity).where(tables.head.c.book == book))
    if owner != entity:
        raise AccountDiffers(f"book {book} belongs to {owner}, not to {entity}")


async def ensure_accounts(
    conn: AsyncConnection,
    book: int,
    keys: Iterable[tuple[str, str]],
    *,
    owners: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> None:
    """Open the accounts that do not exist yet; takes the head's lock only if there are any.

    Args:
        conn: the caller's transaction.
        book: the book.
        keys: (path, asset) pairs of the chart.
        owners: owner class by path, for holdings (see `ledger.chart.account_spec`).
        now: block time; None: the database's clock.

    Raises:
        NotInChart: a path is not in the chart.
        AccountDiffers: an account of that path has another owner than *owners* says.
    """
    owners = owners or {}
    specs = {
        (path, asset): account_spec(path, asset, owners.get(path, "house"))
        for path, asset in sorted(set(keys))
    }
    if len(specs) > BATCH_MAX:
        raise BadInput(f"at most {BATCH_MAX} accounts are opened at once")
    if await _missing(conn, book, specs, owners):
        await open_accounts(conn, book, specs, owners=owners, now=now)


async def open_accounts(
    conn: AsyncConnection,
    book: int,
    specs: Mapping[tuple[str, str], AccountSpec],
    *,
    owners: Mapping[str, str],
    now: datetime | None = None,
) -> None:
    """Open accounts with properties of their own; those that exist are left as they are."""
    head = await store.lock_head(conn, book)
    # Looked for again: another transaction may have opened some before the lock was ours.
    missing = await _missing(conn, book, specs, owners)
    if not missing:
        return
    at, _ = await store.read_clock_and_due(conn, head, now, 0)
    assigned = [head.account_count + n for n in range(1, len(missing) + 1)]
    sequences = [head.sequence + n for n in range(1, len(missing) + 1)]
    lines = [
        account_line(book, sequence, at, number, AccountEventKind.OPENED, spec, "")
        for sequence, number, spec in zip(sequences, assigned, missing, strict=True)
    ]
    sealed = await store.seal(conn, head, lines)
    await store.run(
        conn,
        statements.WRITE_ACCOUNTS,
        book,
        assigned,
        sequences,
        [spec.path for spec in missing],
        [spec.asset for spec in missing],
        [spec.side.value for spec in missing],
        [spec.owner for spec in missing],
        [spec.debits_must_not_exceed_credits for spec in missing],
        [spec.credits_must_not_exceed_debits for spec in missing],
        at,
    )
    await store.write_block(conn, head, sealed, at, records=len(lines), opened=len(lines))


async def _missing(
    conn: AsyncConnection,
    book: int,
    specs: Mapping[tuple[str, str], AccountSpec],
    owners: Mapping[str, str],
) -> list[AccountSpec]:
    rows = await store.run(
        conn,
        statements.READ_OWNERS,
        book,
        [path for path, _ in specs],
        [asset for _, asset in specs],
    )
    existing = {(row.path, row.asset): row.owner for row in rows}
    for key, owner in existing.items():
        if key[0] in owners and specs[key].owner != owner:
            raise AccountDiffers(
                f"{key[0]} {key[1]} belongs to {owner}, not to {specs[key].owner}",
                remedy="An account never changes its owner; open another one",
            )
    return [spec for key, spec in specs.items() if key not in existing]


async def set_frozen(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    *,
    frozen: bool,
    reason: str,
    now: datetime | None = None,
) -> None:
    """Freeze an account, or end that: new debits and credits are refused, open holds are resolved.

    Raises:
        BookNotOpen: there is no such book or account.
    """
    _require_text(reason, "reason")
    head = await store.lock_head(conn, book)
    at, _ = await store.read_clock_and_due(conn, head, now, 0)
    rows = await store.run(
        conn,
        statements.READ_ACCOUNT,
        book,
        path,
        asset,
    )
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    row = rows[0]
    if row.frozen == frozen:
        return
    kind = AccountEventKind.FROZEN if frozen else AccountEventKind.UNFROZEN
    spec = AccountSpec(
        path=path,
        asset=asset,
        side=Side(row.side),
        owner=row.owner,
        debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
        credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
    )
    sequence = head.sequence + 1
    sealed = await store.seal(
        conn, head, [account_line(book, sequence, at, row.number, kind, spec, reason)]
    )
    await store.run(
        conn,
        statements.WRITE_FROZEN,
        book,
        sequence,
        row.number,
        kind.value,
        reason,
        at,
        frozen,
    )
    await store.write_block(conn, head, sealed, at, records=1, opened=0)


async def post(
    conn: AsyncConnection, book: int, batch: Sequence[Transfer], *, now: datetime | None = None
) -> list[PostResult]:
    """Decide *batch* in order and record what comes of it; one result for each transfer.

    Holds that are due are expired first; with an empty batch that is all that happens.

    Args:
        conn: the caller's READ COMMITTED transaction. Nothing is decided until it commits.
        book: the book.
        batch: at most `BATCH_MAX` transfers; accounts must exist (`ensure_accounts`).
        now: block time, unless the last block is later; None: the database's clock.

    Raises:
        BadInput: a request that no book could understand (too long, a float, a control character).
        BookNotOpen: there is no such book.
        NotATransaction: the connection is not in a READ COMMITTED transaction.
    """
    if len(batch) > BATCH_MAX:
        raise BadInput(f"a batch is at most {BATCH_MAX} transfers, not {len(batch)}")
    requests = [prepare(item) for item in batch]
    head = await store.lock_head(conn, book)
    at, due = await store.read_clock_and_due(conn, head, now, EXPIRIES_MAX)
    if not requests and not due:
        return []
    snapshot = await store.read_snapshot(
        conn, head, ids=_ids_of(batch), keys=_keys_of(batch), due=due
    )
    decisions = decide(snapshot, requests, at)
    if decisions.records:
        sealed = await store.seal(conn, head, store.lines_of(book, decisions.records, at))
        await store.write(conn, head, decisions, sealed, at)
    return decisions.results


async def decided(conn: AsyncConnection, book: int, ids: Iterable[UUID]) -> dict[UUID, PostResult]:
    """Return what was decided for those of *ids* that are spent: the answer after a lost COMMIT."""
    results: dict[UUID, PostResult] = {}
    for row in await store.run(conn, statements.READ_TRANSFERS, book, numbers(list(ids))):
        if row.id is not None:
            found = store.transfer_row(row)
            results[found.id] = PostResult(
                outcome=Outcome.CREATED,
                transfer_id=found.id,
                sequence=found.sequence,
                recorded_at=found.recorded_at,
                amount=found.amount,
                replayed=True,
            )
        else:
            results[row.refused_id] = PostResult(
                outcome=Outcome(row.refused_outcome),
                transfer_id=row.refused_id,
                sequence=row.refused_sequence,
                recorded_at=row.refused_at,
                replayed=True,
            )
    return results


def require_applied(results: Iterable[PostResult]) -> None:
    """Raise if any transfer was not applied: for chains that must not fail.

    Raises:
        PostingRefused: names the first refusal that is not only another member's failure.
    """
    refused = [result for result in results if not result.applied]
    own = [r for r in refused if r.outcome is not Outcome.LINKED_EVENT_FAILED] or refused
    if own:
        first = f", first {own[0].first}" if own[0].first else ""
        raise PostingRefused(f"transfer {own[0].transfer_id} was refused: {own[0].outcome}{first}")


def prepare(item: Transfer) -> Request:
    """Return a request ready to decide, refusing what no book could store."""
    if not isinstance(item.amount, int):
        raise BadInput(f"transfer {item.id}: the amount {item.amount!r} is not an integer")
    if item.amount < 0 and not (item.amount == ALL and may_be_all(item)):
        raise BadInput(f"transfer {item.id}: the amount {item.amount} is negative")
    if item.timeout is not None and item.timeout < NO_TIME:
        raise BadInput(f"transfer {item.id}: the timeout {item.timeout} is negative")
    _require_text(item.debit, "debited account")
    _require_text(item.credit, "credited account")
    _require_text(item.asset, "asset code", CODE_LENGTH_MAX)
    _require_text(item.code, "code", CODE_LENGTH_MAX)
    _require_text(item.purpose, "purpose", CODE_LENGTH_MAX)
    _require_text(item.reference, "reference")
    if item.effective_at is not None and item.effective_at.tzinfo is None:
        raise BadInput(f"transfer {item.id}: effective_at has no time zone")
    metadata = canonical_metadata(item.metadata)
    return Request(item, metadata, metadata_hash(metadata))


def _require_text(text: str, name: str, length_max: int = TEXT_LENGTH_MAX) -> None:
    if len(text) > length_max or not text.isprintable():
        raise BadInput(f"a {name} is at most {length_max} printable characters, not {text!r}")


def _ids_of(batch: Sequence[Transfer]) -> list[UUID]:
    ids = {item.id for item in batch}
    ids.update(item.pending_id for item in batch if item.pending_id is not None)
    ids.update(item.reverses for item in batch if item.reverses is not None)
    ids.discard(NIL)
    return list(ids)


def _keys_of(batch: Sequence[Transfer]) -> set[tuple[str, str]]:
    keys = {(item.debit, item.asset) for item in batch}
    keys.update((item.credit, item.asset) for item in batch)
    return keys
