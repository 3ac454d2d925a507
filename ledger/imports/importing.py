"""The verbs of an import: check everything, begin, post batch by batch, complete.

Each step is a transaction of its own and may be repeated: `run_import` after any crash goes on where
the book stands. Locks: the import's row, then the book's head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.accounts import open_accounts
from ledger.imports import store
from ledger.imports.errors import ImportDiffers, ImportStopped
from ledger.imports.model import (
    FileKind,
    ImportReport,
    ImportRun,
    ImportState,
    ObligationRow,
    Plan,
    Planned,
    Standing,
)
from ledger.imports.planning import batches, check_plan, import_bytes, keys_of, make_plan
from ledger.imports.reading import read_files
from ledger.model import BATCH_MAX, AccountSpec
from ledger.opaque import require_token
from ledger.outcome import AccountOutcome, Outcome
from ledger.people import require_approver, require_proposer
from ledger.posting import post
from ledger.queries import head
from registry.queries import list_assets, list_parties

T = TypeVar("T")

ENTITY: Final = "import"
NAME_LENGTH_MAX: Final = 64
REHEARSAL_ROWS_MAX: Final = 4 * BATCH_MAX
"""Rows that are posted in one transaction and rolled back again, at most."""

Progress = Callable[[int, int], None]
"""Is told how many lines are done, of how many."""

SettleObligations = Callable[[AsyncConnection, Sequence[ObligationRow]], Awaitable[int]]
"""Enters obligations in the settlement room, each once; returns how many were new."""

list_imports = store.list_imports


async def check_import(
    conn: AsyncConnection, files: Mapping[str, bytes], *, book: int, now: datetime
) -> Plan:
    """Read and check all files; nothing is written.

    Args:
        conn: a connection to read with.
        files: bytes by file name: ``balances.csv``.
        book: into which book.
        now: nothing may be effective later.

    Raises:
        FilesNotValid: names every fault, up to a bound.
        BookNotOpen: there is no such book.
    """
    assets = {asset.code: asset for asset in await list_assets(conn)}
    rows = read_files(files, assets)
    plan = make_plan(rows)
    standing = await head(conn, book)
    done: set[UUID] = set()
    for part in batches(plan):
        done.update(await store.read_posted(conn, book, [item.transfer.id for item in part]))
    check_plan(
        plan,
        rows,
        Standing(
            now=now,
            known=await store.read_known(conn, book, keys_of(plan)),
            done=frozenset(done),
            begun=await store.is_begun(conn, book, plan.digest),
            parties=frozenset(party.code for party in await list_parties(conn)),
            imported_through=standing.imported_through,
            closed_through=standing.closed_through,
        ),
    )
    return plan


async def begin_import(
    conn: AsyncConnection,
    plan: Plan,
    *,
    book: int,
    name: str,
    reason: str,
    by: str,
    approver: str,
    signature: bytes,
    now: datetime,
) -> ImportRun:
    """Record that an import begins; the same name and files again return it as it stands.

    Args:
        conn: the caller's transaction.
        plan: what `check_import` returned.
        book: into which book.
        name: an opaque name of the operator's own.
        reason: why, in words.
        by: code of the operator, authenticated by the caller.
        approver: code of another operator.
        signature: the approver's, Ed25519, over `planning.import_bytes`.
        now: the time of the beginning.

    Raises:
        NotAuthorised: one person, a missing role, or a signature of other files.
        ImportDiffers: the name is bound to other files, or the files to another name.
    """
    require_token(name, "name of an import", NAME_LENGTH_MAX)
    if not name or not reason.strip():
        raise BadInput("an import has a name and a reason")
    operator = await require_proposer(conn, by)
    payload = import_bytes(book, name, plan.digest, reason=reason, imported_by=operator.code)
    await require_approver(
        conn, approver, proposed_by=operator.code, payload=payload, signature=signature
    )
    item = ImportRun(
        id=derive_id(now, ENTITY, book, name, plan.digest),
        book=book,
        name=name,
        digest=plan.digest,
        state=ImportState.BEGUN,
        reason=reason,
        imported_by=operator.code,
        approved_by=approver,
        begun_at=now,
    )
    if await store.insert_import(conn, item, plan, signature):
        await _record(conn, item, None, now=now, payload={"rows": plan.rows})
        return item
    for known in await store.find_imports(conn, book, name, plan.digest):
        if (known.name, known.digest) != (name, plan.digest):
            raise ImportDiffers(
                f"the import {known.name} of book {book} has begun with "
                f"{'other' if known.name == name else 'these'} files",
                where=f"files {known.digest}",
                remedy="Go on with the same name and files; correct what was wrong by postings",
            )
        item = known
    return item


async def import_accounts(
    conn: AsyncConnection, book: int, specs: Sequence[AccountSpec], *, now: datetime
) -> Counter[bool]:
    """Open accounts; return how many were new (True) and how many were open already (False).

    An account that is open with another beginning or purpose stays as it is.

    Raises:
        ImportStopped: one is open with another side, other flags or another owner.
    """
    results = await open_accounts(conn, book, specs, now=now)
    wrong = {
        AccountOutcome.EXISTS_WITH_DIFFERENT_SIDE,
        AccountOutcome.EXISTS_WITH_DIFFERENT_FLAGS,
        AccountOutcome.EXISTS_WITH_DIFFERENT_OWNER,
        AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE,
    }
    for result in results:
        if result.outcome in wrong:
            raise ImportStopped(f"the account {result.path} {result.asset}: {result.outcome}")
    return Counter(result.outcome is AccountOutcome.CREATED for result in results)


async def import_batch(
    conn: AsyncConnection, book: int, batch: Sequence[Planned], *, now: datetime
) -> Counter[bool]:
    """Post a batch; return how many were new (True) and how many the journal had (False).

    Raises:
        ImportStopped: the ledger refuses a line; the caller must not commit.
    """
    results = await post(conn, book, [item.transfer for item in batch], now=now)
    for item, result in zip(batch, results, strict=True):
        if not result.applied:
            raise ImportStopped(
                f"the ledger refuses it: {result.outcome}",
                where=f"{item.file}.csv:{item.line}",
                remedy="What came before is posted; put it right and run the import again",
            )
    return Counter(result.outcome is Outcome.CREATED for result in results)


async def complete_import(
    conn: AsyncConnection, import_id: UUID, plan: Plan, *, now: datetime
) -> ImportRun:
    """Prove from the journal that every line is in it and meets its totals, and say so.

    Raises:
        ImportStopped: a line is missing, or a total is not met.
    """
    item = await store.lock_import(conn, import_id)
    if item.state is ImportState.COMPLETED:
        return item
    await _require_totals(conn, item.book, plan)
    after = await store.move_import(conn, item, ImportState.COMPLETED, completed_at=now)
    await _record(conn, after, item.state, now=now, payload=_totals_payload(plan))
    return after


async def run_import(
    engine: AsyncEngine,
    plan: Plan,
    run: ImportRun,
    *,
    clock: Callable[[], datetime],
    settle: SettleObligations | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Post everything, each batch in a transaction of its own, and complete the import.

    Args:
        engine: the database.
        plan: what `check_import` returned.
        run: what `begin_import` returned and was committed.
        clock: the time of each block.
        settle: enters obligations; needed if there are any.
        progress: is told after each batch.

    Raises:
        ImportStopped: the ledger refuses a line; what was posted before it stays.
    """

    async def apart(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(engine, work)

    return await _run(apart, plan, run, clock, settle, progress or _nobody)


async def rehearse_import(
    conn: AsyncConnection,
    plan: Plan,
    run: ImportRun,
    *,
    now: datetime,
    settle: SettleObligations | None = None,
) -> ImportReport:
    """Do what `run_import` does in the caller's transaction, which is to be rolled back.

    Raises:
        BadInput: more than `REHEARSAL_ROWS_MAX` rows: they would hold the book too long.
    """
    if plan.rows > REHEARSAL_ROWS_MAX:
        raise BadInput(f"an import of more than {REHEARSAL_ROWS_MAX} rows is checked only")

    async def here(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await work(conn)

    return await _run(here, plan, run, lambda: now, settle, _nobody)


class _Transaction(Protocol):
    """Runs work in a transaction: one of its own, or the one there is."""

    async def __call__(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return what *work* returned."""
        ...


async def _run(
    transaction: _Transaction,
    plan: Plan,
    run: ImportRun,
    clock: Callable[[], datetime],
    settle: SettleObligations | None,
    progress: Progress,
) -> ImportReport:
    if plan.obligations and settle is None:
        raise BadInput("the import has obligations, and nobody to enter them")
    opened = Counter[bool]()
    posted = Counter[bool]()
    entered = done = 0
    for specs in _parts(plan.accounts):
        opened += await transaction(partial(_open, book=run.book, specs=specs, clock=clock))
        done += len(specs)
        progress(done, plan.rows)
    for batch in batches(plan):
        posted += await transaction(partial(_post, book=run.book, batch=batch, clock=clock))
        done += len(batch)
        progress(done, plan.rows)
    for rows in _parts(plan.obligations):
        assert settle is not None
        entered += await transaction(partial(_settle, settle=settle, rows=rows))
        done += len(rows)
        progress(done, plan.rows)
    completed = await transaction(lambda conn: complete_import(conn, run.id, plan, now=clock()))
    return ImportReport(
        run=completed,
        accounts_created=opened[True],
        accounts_existing=opened[False],
        transfers_created=posted[True],
        transfers_existing=posted[False],
        obligations=entered,
    )


async def _open(
    conn: AsyncConnection,
    *,
    book: int,
    specs: Sequence[AccountSpec],
    clock: Callable[[], datetime],
) -> Counter[bool]:
    return await import_accounts(conn, book, specs, now=clock())


async def _post(
    conn: AsyncConnection, *, book: int, batch: Sequence[Planned], clock: Callable[[], datetime]
) -> Counter[bool]:
    return await import_batch(conn, book, batch, now=clock())


async def _settle(
    conn: AsyncConnection, *, settle: SettleObligations, rows: Sequence[ObligationRow]
) -> int:
    return await settle(conn, rows)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_MAX):
        yield items[start : start + BATCH_MAX]


def _nobody(done: int, total: int) -> None:
    """Tell nobody about progress."""


async def _require_totals(conn: AsyncConnection, book: int, plan: Plan) -> None:
    """Hold what the journal has recorded against the declared totals, line by line and in sum."""
    found: dict[tuple[FileKind, str], tuple[int, int]] = {}
    for batch in batches(plan):
        amounts = await store.read_posted(conn, book, [item.transfer.id for item in batch])
        for item in batch:
            amount = amounts.get(item.transfer.id)
            if amount is None:
                raise ImportStopped(
                    "the journal does not have it", where=f"{item.file}.csv:{item.line}"
                )
            key = item.file, item.transfer.asset
            rows, total = found.get(key, (0, 0))
            found[key] = rows + 1, total + amount
    for key, (rows, total) in found.items():
        if plan.posted[key] != (rows, total):
            raise ImportStopped(
                f"{key[0]}.csv came to {rows} rows and {total} smallest units of {key[1]} in the "
                f"journal, not to {plan.posted[key][0]} and {plan.posted[key][1]}"
            )


async def _record(
    conn: AsyncConnection,
    item: ImportRun,
    before: ImportState | None,
    *,
    now: datetime,
    payload: Mapping[str, object],
) -> None:
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=f"Import{item.state.capitalize()}",
        at=now,
        actor=item.imported_by,
        reason=item.reason,
        from_state=before,
        to_state=item.state,
        payload={
            "book": item.book,
            "name": item.name,
            "files": item.digest,
            "approved_by": item.approved_by,
            **payload,
        },
    )
    await record(conn, [event])


def _totals_payload(plan: Plan) -> dict[str, object]:
    return {
        "totals": [
            {"file": str(kind), "asset": asset, "rows": rows, "total": str(total)}
            for (kind, asset), (rows, total) in sorted(plan.totals.items())
        ]
    }
