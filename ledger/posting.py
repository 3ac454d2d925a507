"""The verbs that write the journal.

`post` works in the caller's transaction. Order of work: lock the head in one statement; read the
clock and the balances in the next ones; decide in Python; write in a fixed number of
statements, whatever the size of the batch. Nothing is decided until the caller commits.

Lock order of callers: take every lock that can be waited for first, then post, then only update rows
already locked, append outbox rows, and commit (`ledger.testing.enforce_lock_order` watches that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from ledger import merkle, statements, store, tables
from ledger.arrays import numbers, texts, times
from ledger.chart import account_spec
from ledger.decide import EXPIRIES_MAX, decide
from ledger.errors import AccountDiffers, BookNotOpen, PeriodRefused, PostingRefused
from ledger.form import check_form, check_id, may_be_all
from ledger.model import (
    ALL,
    BATCH_MAX,
    AccountEventKind,
    AccountResult,
    AccountSpec,
    Kind,
    PeriodEventKind,
    PostResult,
    Transfer,
    chain,
    transfer,
)
from ledger.opaque import (
    CODE_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    canonical_metadata,
    is_short_token,
    metadata_hash,
    require_token,
)
from ledger.outcome import AccountOutcome, Outcome
from ledger.records import account_line, microseconds, period_line, tail_of, user_data_of, uuid_text
from ledger.state import Request, Standing
from ledger.working import effective_day

NO_TIME: Final = timedelta(0)
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
    _require_few(specs)
    existing = {
        (row["path"], row["asset"]): row["owner"]
        for row in (
            item._mapping  # noqa: SLF001  SQLAlchemy's public name for a row as a mapping
            for item in await store.run(conn, statements.READ_SPECS, book, *_columns(specs))
        )
    }
    for key, owner in existing.items():
        if key[0] in owners and specs[key].owner != owner:
            raise AccountDiffers(
                f"{key[0]} {key[1]} belongs to {owner}, not to {specs[key].owner}",
                remedy="An account never changes its owner; open another one",
            )
    missing = [spec for key, spec in specs.items() if key not in existing]
    if missing:
        await open_accounts(conn, book, missing, now=now)


def _require_few(items: Any) -> None:
    if len(items) > BATCH_MAX:
        raise BadInput(f"at most {BATCH_MAX} accounts are opened at once")


def _columns(keys: Iterable[tuple[str, str]]) -> tuple[str, str]:
    pairs = list(keys)
    return texts([path for path, _ in pairs]), texts([asset for _, asset in pairs])


async def open_accounts(
    conn: AsyncConnection,
    book: int,
    specs: Sequence[AccountSpec],
    *,
    now: datetime | None = None,
) -> list[AccountResult]:
    """Open accounts; those that exist are left as they are. One answer for each.

    Args:
        conn: the caller's transaction.
        book: the book.
        specs: at most `BATCH_MAX`. A credit limit that differs is no difference: it can be set anew.
        now: block time; None: the database's clock.

    Raises:
        BadInput: a spec that no book could understand.
        BookNotOpen: there is no such book.
    """
    _require_few(specs)
    for spec in specs:
        _require_spec(spec)
    head = await store.lock(conn, book, now)
    async with driver(conn) as raw:
        rows = await raw.fetch(
            statements.READ_SPECS, book, *_columns({(s.path, s.asset) for s in specs})
        )
    found = {(row["path"], row["asset"]): row for row in rows}
    results: list[AccountResult] = []
    new: dict[tuple[str, str], tuple[AccountSpec, AccountResult]] = {}
    for spec in specs:
        key = spec.path, spec.asset
        if key in new:
            opened, result = new[key]
            outcome = _compare_specs(spec, opened)
            results.append(replace(result, outcome=outcome))
        elif key in found:
            row = found[key]
            outcome = _compare_specs(spec, store.spec_of(row))
            results.append(
                AccountResult(
                    outcome=outcome,
                    path=key[0],
                    asset=key[1],
                    number=row["number"],
                    sequence=row["sequence"],
                )
            )
        elif spec.debits_must_not_exceed_credits and spec.credits_must_not_exceed_debits:
            outcome = AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
            results.append(AccountResult(outcome=outcome, path=key[0], asset=key[1]))
        else:
            count = len(new) + 1
            result = AccountResult(
                outcome=AccountOutcome.CREATED,
                path=key[0],
                asset=key[1],
                number=head.account_count + count,
                sequence=head.sequence + count,
            )
            new[key] = spec, result
            results.append(result)
    if new:
        await _write_accounts(conn, head, list(new.values()))
    return results


async def _write_accounts(
    conn: AsyncConnection,
    head: store.LockedHead,
    new: Sequence[tuple[AccountSpec, AccountResult]],
) -> None:
    lines = [
        account_line(
            head.book,
            head.sequence + place,
            head.at,
            head.account_count + place,
            AccountEventKind.OPENED,
            spec,
            "",
        )
        for place, (spec, _) in enumerate(new, 1)
    ]
    sealed = await store.seal(conn, head, lines)
    specs = [spec for spec, _ in new]
    async with driver(conn) as raw:
        await raw.execute(
            statements.WRITE_ACCOUNTS,
            head.book,
            numbers([result.number for _, result in new]),
            numbers([result.sequence for _, result in new]),
            texts([spec.path for spec in specs]),
            texts([spec.asset for spec in specs]),
            texts([spec.side.value for spec in specs]),
            texts([spec.owner for spec in specs]),
            numbers([spec.debits_must_not_exceed_credits for spec in specs]),
            numbers([spec.credits_must_not_exceed_debits for spec in specs]),
            numbers([spec.credit_limit for spec in specs]),
            texts([spec.purpose for spec in specs]),
            texts([canonical_metadata(spec.metadata) or "{}" for spec in specs]),
            times([spec.effective_at for spec in specs]),
            head.at,
        )
        await store.write_block(
            raw,
            head,
            sealed,
            records=len(lines),
            opened=len(lines),
            closed_through=head.closed_through,
        )


def _compare_specs(asked: AccountSpec, found: AccountSpec) -> AccountOutcome:
    """Return ``exists``, or the name of the first property that differs."""
    checks = (
        (asked.side is not found.side, AccountOutcome.EXISTS_WITH_DIFFERENT_SIDE),
        (
            asked.debits_must_not_exceed_credits != found.debits_must_not_exceed_credits
            or asked.credits_must_not_exceed_debits != found.credits_must_not_exceed_debits,
            AccountOutcome.EXISTS_WITH_DIFFERENT_FLAGS,
        ),
        (asked.owner != found.owner, AccountOutcome.EXISTS_WITH_DIFFERENT_OWNER),
        (asked.purpose != found.purpose, AccountOutcome.EXISTS_WITH_DIFFERENT_PURPOSE),
        (
            canonical_metadata(asked.metadata) != canonical_metadata(found.metadata),
            AccountOutcome.EXISTS_WITH_DIFFERENT_METADATA,
        ),
        (
            asked.effective_at != found.effective_at,
            AccountOutcome.EXISTS_WITH_DIFFERENT_EFFECTIVE_TIME,
        ),
    )
    return next((outcome for differs, outcome in checks if differs), AccountOutcome.EXISTS)


def _require_spec(spec: AccountSpec) -> None:
    for text, name in (
        (spec.path, "path"),
        (spec.asset, "asset code"),
        (spec.owner, "owner class"),
        (spec.purpose, "purpose"),
    ):
        require_token(text, name)
    if not spec.path or not spec.asset:
        raise BadInput(f"an account has a path and an asset, not {spec.path!r} and {spec.asset!r}")
    _require_limit(spec.credit_limit)
    canonical_metadata(spec.metadata)
    if spec.effective_at is not None and spec.effective_at.tzinfo is None:
        raise BadInput(f"account {spec.path}: effective_at has no time zone")


def _require_limit(limit: int) -> None:
    if not 0 <= limit <= AMOUNT_MAX:
        raise BadInput(f"a credit limit is an integer from 0 to 2^256 - 1, not {limit!r}")


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
    kind = AccountEventKind.FROZEN if frozen else AccountEventKind.UNFROZEN
    await _change_account(conn, book, (path, asset), kind, None, reason, now)


async def set_credit_limit(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    limit: int,
    *,
    reason: str,
    now: datetime | None = None,
) -> None:
    """Say by how much the guarded side of an account may exceed the other from now on.

    Args:
        conn: the caller's transaction.
        book: the book.
        path, asset: the account.
        limit: in smallest units.
        reason: for the journal; no personal data.
        now: block time; None: the database's clock.

    Raises:
        BookNotOpen: there is no such book or account.
        PostingRefused: more than *limit* is in use already.
    """
    _require_limit(limit)
    await _change_account(conn, book, (path, asset), AccountEventKind.LIMITED, limit, reason, now)


async def _change_account(
    conn: AsyncConnection,
    book: int,
    key: tuple[str, str],
    kind: AccountEventKind,
    limit: int | None,
    reason: str,
    now: datetime | None,
) -> None:
    _require_reason(reason)
    head = await store.lock(conn, book, now, keys=[key])
    async with driver(conn) as raw:
        rows = await raw.fetch(statements.READ_SPECS, book, *_columns([key]))
        if not rows:
            raise BookNotOpen(f"book {book} has no account {key[0]} {key[1]}")
        row, spec = rows[0], store.spec_of(rows[0])
        frozen = row["frozen"] if limit is not None else kind is AccountEventKind.FROZEN
        if limit is None and frozen == row["frozen"]:
            return
        if limit is not None:
            if limit == spec.credit_limit:
                return
            _require_unused(head.accounts[0], limit)
            spec = replace(spec, credit_limit=limit)
    sequence = head.sequence + 1
    line = account_line(book, sequence, head.at, row["number"], kind, spec, reason)
    sealed = await store.seal(conn, head, [line])
    async with driver(conn) as raw:
        await raw.execute(
            statements.WRITE_ACCOUNT_EVENT,
            book,
            sequence,
            row["number"],
            kind.value,
            reason,
            head.at,
            None if limit is None else str(limit),
            frozen,
            str(spec.credit_limit),
        )
        await store.write_block(raw, head, sealed, records=1, closed_through=head.closed_through)


def _require_unused(account: Standing, limit: int) -> None:
    debits = account.debits_pending + account.debits_posted
    credits_ = account.credits_pending + account.credits_posted
    used = 0
    if account.debits_capped:
        used = debits - account.credits_posted
    elif account.credits_capped:
        used = credits_ - account.debits_posted
    if used > limit:
        raise PostingRefused(
            f"{account.path} {account.asset} uses {used} of its credit limit, more than {limit}",
            remedy="Let the account be paid back first",
        )


async def close_period(
    conn: AsyncConnection,
    book: int,
    through: date,
    *,
    reason: str,
    proposed_by: str,
    approved_by: str,
    now: datetime | None = None,
) -> int:
    """Close the effective days up to and including *through*; return the record's sequence.

    From then on a transfer that is effective on such a day is refused. Whether these people may
    close it is not asked here.

    Raises:
        PeriodRefused: the day is not over yet in the journal's own time, or closed already.
    """
    return await _record_period(
        conn, book, PeriodEventKind.CLOSED, through, (reason, proposed_by, approved_by), now
    )


async def reopen_period(
    conn: AsyncConnection,
    book: int,
    through: date,
    *,
    reason: str,
    proposed_by: str,
    approved_by: str,
    now: datetime | None = None,
) -> int:
    """Reopen the effective days after *through*, which stays closed; return the record's sequence.

    Raises:
        PeriodRefused: nothing after that day is closed.
    """
    return await _record_period(
        conn, book, PeriodEventKind.REOPENED, through, (reason, proposed_by, approved_by), now
    )


async def _record_period(
    conn: AsyncConnection,
    book: int,
    kind: PeriodEventKind,
    through: date,
    said: tuple[str, str, str],
    now: datetime | None,
) -> int:
    for text in said:
        _require_reason(text)
    head = await store.lock(conn, book, now)
    _require_period(head.closed_through, kind, through, head.at)
    sequence = head.sequence + 1
    line = period_line(book, sequence, head.at, kind, through, *said)
    sealed = await store.seal(conn, head, [line])
    async with driver(conn) as raw:
        await raw.execute(
            statements.WRITE_PERIOD_EVENT, book, sequence, kind.value, through, *said, head.at
        )
        await store.write_block(raw, head, sealed, records=1, closed_through=through)
    return sequence


def _require_period(
    closed: date | None, kind: PeriodEventKind, through: date, at: datetime
) -> None:
    match kind:
        case PeriodEventKind.CLOSED:
            if through >= effective_day(at):
                raise PeriodRefused(
                    f"{through} is not over yet: the book's time is {at.isoformat()}",
                    remedy="Close it on a later day",
                )
            if closed is not None and through <= closed:
                raise PeriodRefused(f"everything up to {closed} is closed already")
        case PeriodEventKind.REOPENED:
            if closed is None or through >= closed:
                raise PeriodRefused(f"nothing after {through} is closed")


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
        await store.write(conn, head, decisions)
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
    posted from *receivable* to it, linked with the reversal, so both are made or neither.

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
    refused = [result for result in results if not result.applied]
    own = [r for r in refused if r.outcome is not Outcome.LINKED_EVENT_FAILED] or refused
    if own:
        first = f", first {own[0].first}" if own[0].first else ""
        raise PostingRefused(f"transfer {own[0].transfer_id} was refused: {own[0].outcome}{first}")


def prepare(item: Transfer) -> Request:
    """Return a request ready to decide, refusing what no book could store.

    Raises:
        BadInput: names the transfer's field.
    """
    amount = item.amount
    if not isinstance(amount, int):
        raise BadInput(f"transfer {item.id}: the amount {amount!r} is not an integer")
    if amount < 0 and not (amount == ALL and may_be_all(item)):
        raise BadInput(f"transfer {item.id}: the amount {amount} is negative")
    if item.timeout is not None and item.timeout < NO_TIME:
        raise BadInput(f"transfer {item.id}: the timeout {item.timeout} is negative")
    _require_texts(item)
    if item.effective_at is not None and item.effective_at.tzinfo is None:
        raise BadInput(f"transfer {item.id}: effective_at has no time zone")
    metadata = hashed = ""
    if item.metadata:
        metadata = canonical_metadata(item.metadata)
        hashed = metadata_hash(metadata)
    flags = item.flags
    fault = check_id(item) or check_form(item, flags)
    return Request(
        item,
        item.kind is Kind.SINGLE
        and not flags
        and fault is None
        and not item.linked
        and item.effective_at is None,
        uuid_text(item.id),
        (item.debit, item.asset),
        (item.credit, item.asset),
        flags,
        fault,
        metadata,
        hashed,
        tail_of(
            item.code, item.pending_id, item.reverses, item.purpose, microseconds(item.timeout)
        ),
        user_data_of(item.reference, item.correlation, hashed),
    )


def _require_texts(item: Transfer) -> None:
    if (
        is_short_token(item.code)
        and is_short_token(item.debit)
        and is_short_token(item.credit)
        and is_short_token(item.asset)
        and is_short_token(item.purpose)
        and not item.reference
    ):
        return
    require_token(item.debit, "debited account")
    require_token(item.credit, "credited account")
    require_token(item.asset, "asset code", CODE_LENGTH_MAX)
    require_token(item.code, "code", CODE_LENGTH_MAX)
    require_token(item.purpose, "purpose", CODE_LENGTH_MAX)
    require_token(item.reference, "reference")


def _require_reason(text: str) -> None:
    if not text or len(text) > TEXT_LENGTH_MAX or not text.isprintable():
        raise BadInput(f"a reason is 1 to {TEXT_LENGTH_MAX} printable characters, not {text!r}")
