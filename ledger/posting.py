"""The verbs that write the journal.

`post` works in the caller's transaction. Order of work: lock the head in one statement; read the
clock and the balances in the next ones; decide in Python; write in a fixed number of
statements, whatever the size of the batch. Nothing is decided until the caller commits.

Lock order of callers: take every lock that can be waited for first, then post, then only update rows
already locked, append outbox rows, and commit (`ledger.testing.enforce_lock_order` watches that).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from kernel.errors import BadInput
from ledger import blocks, merkle, statements, store, tables
from ledger.accounts import ensure_accounts
from ledger.answers import failing_member
from ledger.arrays import numbers
from ledger.decide import EXPIRIES_MAX, decide
from ledger.errors import AccountDiffers, PostingRefused
from ledger.model import BATCH_MAX, Kind, PostResult, Transfer, chain, transfer
from ledger.outcome import Outcome
from ledger.requests import prepare
from ledger.state import Standing

SHORTFALL_CODE: Final = "reversal.shortfall"


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


async def lock_book(conn: AsyncConnection, book: int) -> None:
    """Let nobody else write to the book until the transaction ends: what is read next stays true.

    Raises:
        BookNotOpen: there is no such book.
        NotATransaction: the connection is not in a READ COMMITTED transaction.
    """
    await store.lock(conn, book, None)


async def post(
    conn: AsyncConnection, book: int, batch: Sequence[Transfer], *, now: datetime | None = None
) -> list[PostResult]:
    """Decide *batch* in order and record what comes of it; one result for each transfer.

    Holds that are due are expired first; with an empty batch that is all that happens.

    Args:
        conn: the caller's READ COMMITTED transaction. Nothing is decided until it commits.
        book: the book.
        batch: at most `BATCH_MAX` transfers; accounts must exist (`ensure_accounts`).
        now: block time for engines with an injected clock (`kernel.db.create_engine`), unless the
            last block is later; else, and if None, it is the database's clock.

    Raises:
        BadInput: a request that no book could understand (too long, a float, no token).
        BookNotOpen: there is no such book.
        NotATransaction: the connection is not in a READ COMMITTED transaction.
    """
    if len(batch) > BATCH_MAX:
        raise BadInput(f"a batch is at most {BATCH_MAX} transfers, not {len(batch)}")
    requests = [prepare(item) for item in batch]
    ids, keys = store.ids_of(requests), store.keys_of(requests)
    head = await store.lock(conn, book, now, due_max=EXPIRIES_MAX, ids=ids, keys=keys)
    if not requests and not head.due:
        return []
    snapshot = store.snapshot_of(head)
    async with driver(conn) as raw:
        await store.complete(raw, snapshot, head, requests)
    decisions = decide(snapshot, requests, head.at)
    if decisions.lines:
        await blocks.write(conn, head, decisions)
    return decisions.results


async def post_reversal(
    conn: AsyncConnection,
    book: int,
    reversal: Transfer,
    *,
    shortfall_id: UUID,
    receivable: str,
    now: datetime | None = None,
) -> list[PostResult]:
    """Reverse a transfer even if that would overdraw: what is missing becomes a receivable.

    Where the account that the reversal debits has less available than that, the difference is first
    posted from *receivable* to it, linked with the reversal, so both are made or neither. What holds
    reserve that are due by then is available.

    Args:
        conn: the caller's READ COMMITTED transaction.
        book: the book.
        reversal: as `ledger.model.reversal` makes it.
        shortfall_id: id of the transfer that covers a shortfall.
        receivable: path of the account that is owed it; opened if it does not exist.
        now: block time for engines with an injected clock (`kernel.db.create_engine`), unless the
            last block is later; else, and if None, it is the database's clock.

    Raises:
        BadInput: not a reversal.
    """
    if reversal.kind is not Kind.REVERSAL or reversal.reverses is None:
        raise BadInput(f"transfer {reversal.id} is not a reversal")
    await post(conn, book, (), now=now)
    snapshot = store.snapshot_of(await store.lock(conn, book, now))
    async with driver(conn) as raw:
        ids = [reversal.id, reversal.reverses, shortfall_id]
        touched = await store.read_history(raw, snapshot, ids)
        await store.read_accounts_by_number(raw, snapshot, touched)
    original = snapshot.transfers.get(reversal.reverses)
    if original is None or reversal.id in snapshot.transfers:
        return await post(conn, book, [reversal], now=now)
    debited = snapshot.accounts[original.credit]
    short = _shortfall(debited, original.amount)
    if not short:
        return await post(conn, book, [reversal], now=now)
    await ensure_accounts(conn, book, [(receivable, debited.asset)], now=now)
    covering = transfer(
        shortfall_id,
        receivable,
        debited.path,
        short,
        debited.asset,
        code=SHORTFALL_CODE,
        correlation=reversal.correlation,
    )
    return await post(conn, book, chain(covering, reversal), now=now)


def _shortfall(account: Standing, amount: int) -> int:
    if not account.debits_capped:
        return 0
    available = (
        account.credits_posted
        + account.credit_limit
        - account.debits_posted
        - account.debits_pending
    )
    return max(0, amount - available)


async def decided(conn: AsyncConnection, book: int, ids: Iterable[UUID]) -> dict[UUID, PostResult]:
    """Return what was decided for those of *ids* that are spent: the answer after a lost COMMIT."""
    results: dict[UUID, PostResult] = {}
    await store.run(conn, statements.KEYS_ONLY)
    for row in await store.run(conn, statements.READ_TRANSFERS, book, numbers(list(ids))):
        if row.id is not None:
            results[row.id] = PostResult(
                outcome=Outcome.CREATED,
                transfer_id=row.id,
                sequence=row.sequence,
                recorded_at=row.recorded_at,
                amount=int(row.amount),
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
    failed = failing_member(results)
    if failed is not None:
        first = f", first {failed.first}" if failed.first else ""
        raise PostingRefused(f"transfer {failed.transfer_id} was refused: {failed.outcome}{first}")
