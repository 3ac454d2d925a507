"""The verbs that open accounts, freeze them, and set their limits; each is a record of the journal.

An account is never changed and never removed. Opening is idempotent: what exists is compared, and the
answer says in which property it differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from ledger import blocks, statements, store
from ledger.arrays import numbers, texts, times
from ledger.chart import account_spec
from ledger.errors import AccountDiffers, BookNotOpen, PostingRefused
from ledger.model import BATCH_MAX, AccountEventKind, AccountResult, AccountSpec
from ledger.opaque import canonical_metadata, require_reason, require_token
from ledger.outcome import AccountOutcome
from ledger.records import account_line
from ledger.state import Standing


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
    owned = {key: spec for key, spec in specs.items() if key[0] in owners}
    existing = await _read_owners(conn, book, specs)
    _require_owners(owned, existing)
    missing = [spec for key, spec in specs.items() if key not in existing]
    if not missing:
        return
    results = await open_accounts(conn, book, missing, now=now)
    if any(result.outcome is not AccountOutcome.CREATED for result in results):
        # Somebody else has opened them while the head was waited for.
        _require_owners(owned, await _read_owners(conn, book, owned))


async def _read_owners(
    conn: AsyncConnection, book: int, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return the owner classes of those accounts that exist."""
    return {
        (row.path, row.asset): row.owner
        for row in await store.run(conn, statements.READ_SPECS, book, *_columns(keys))
    }


def _require_owners(
    owned: Mapping[tuple[str, str], AccountSpec], existing: Mapping[tuple[str, str], str]
) -> None:
    for key, owner in existing.items():
        if key in owned and owned[key].owner != owner:
            raise AccountDiffers(
                f"{key[0]} {key[1]} belongs to {owner}, not to {owned[key].owner}",
                remedy="An account never changes its owner; open another one",
            )


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
        if spec.debits_must_not_exceed_credits and spec.credits_must_not_exceed_debits:
            outcome = AccountOutcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
            results.append(AccountResult(outcome=outcome, path=key[0], asset=key[1]))
        elif key in new:
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
    sealed = await blocks.seal(conn, head, lines)
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
        await blocks.write_block(
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
    require_reason(reason)
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
    sealed = await blocks.seal(conn, head, [line])
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
        await blocks.write_block(raw, head, sealed, records=1, closed_through=head.closed_through)


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
