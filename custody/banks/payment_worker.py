"""The worker of payments through banks: one committed step after the other, and the same bytes again.

drafted (bytes are a row) -> approved by people -> released (claims debited) -> a copy counted -> handed over,
for as long as nobody knows. A crash between any two leaves rows from which the next worker goes on: a file that was
released is handed over, one that was handed over without an answer is handed over again, and the bank
tells the second copy from the first by its name and ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from banks.submission import BankGateway, Outcome, Submission
from custody.banks import payment_store as store
from custody.banks.payment_files import LOOK_AGAIN_AFTER, discard, draft_file
from custody.banks.payment_model import UNRELEASED, FileState, PaymentFile
from custody.banks.payment_moves import WORKER
from custody.banks.payment_release import record_submission, release_file, take_copy
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from custody.compliance.screening import screen_payouts
from custody.restore_gate import find_gate
from kernel import tracing
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutsideUnavailable, StaleFence
from registry.model import BANK

LEASE: Final = timedelta(seconds=120)
FILES_MAX: Final = 20
"""Files taken further in one call."""
TEXT_LENGTH_MAX: Final = 500


@dataclass(slots=True)
class BankWork:
    """What one call did: ids of files by what became of them, and why others wait (by file or account)."""

    drafted: list[UUID] = field(default_factory=list)
    released: list[UUID] = field(default_factory=list)
    submitted: list[UUID] = field(default_factory=list)
    unknown: list[UUID] = field(default_factory=list)
    held: list[UUID] = field(default_factory=list)
    discarded: list[UUID] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What one call works with."""

    engine: AsyncEngine
    gateways: Mapping[str, BankGateway]
    clock: Clock
    report: BankWork


async def advance_bank_payments(
    engine: AsyncEngine,
    gateways: Mapping[str, BankGateway],
    *,
    book: int,
    holder: str,
    clock: Clock,
    screening: Screening = NOBODY_LISTED,
    drafts: bool = True,
    gather: timedelta = timedelta(0),
    limit: int = FILES_MAX,
) -> BankWork:
    """Take payments through banks as far as they go now; return what was done.

    Args:
        engine: the database, as the runtime role.
        gateways: the door of each account's bank, by code of the account.
        book: the book.
        holder: this worker's name: it holds the leases.
        clock: the time, read anew at each step.
        screening: asked about every payout before a file has it.
        drafts: whether files are written by the worker, or only when a person asks for one.
        gather: a file waits until the oldest of its payouts is so old, so that it has many.
        limit: files handed over, at most.
    """
    bench = _Bench(engine, gateways, clock, BankWork())
    # Who screens may be away: what has no answer waits, and what has one goes on.
    with contextlib.suppress(OutsideUnavailable):
        await screen_payouts(engine, screening, BANK, now=clock.now())
    await _discard_lapsed(bench, book)
    if drafts:
        await _draft(bench, book, gather)

    async def take(conn: AsyncConnection) -> list[PaymentFile]:
        return await store.claim_files(
            conn,
            book,
            holder=holder,
            now=clock.now(),
            lease_for=LEASE,
            limit=min(limit, FILES_MAX),
        )

    for file in await transact(engine, take):
        await _advance(bench, file)
    return bench.report


async def _draft(bench: _Bench, book: int, gather: timedelta) -> None:
    now = bench.clock.now()
    async with bench.engine.connect() as conn:
        accounts = await store.list_accounts_due(conn, book, now=now, since=now - gather)
    for account in accounts:

        async def write(conn: AsyncConnection, account: str = account) -> PaymentFile | None:
            return await draft_file(conn, account, book=book, by=WORKER, now=bench.clock.now())

        try:
            drafted = await transact(bench.engine, write)
        except CausewayError as error:
            bench.report.waiting[account] = error.render()
        except DBAPIError as error:
            bench.report.waiting[account] = f"the database refused: {error.orig}"
        else:
            if drafted is not None:
                bench.report.drafted.append(drafted.id)


async def _discard_lapsed(bench: _Bench, book: int) -> None:
    async with bench.engine.connect() as conn:
        if await find_gate(conn) is not None:
            # After a restore a bank may have what stands here as never released.
            return
        lapsed = await store.list_lapsed(conn, book, now=bench.clock.now())
    for file_id in lapsed:

        async def end(conn: AsyncConnection, file_id: UUID = file_id) -> bool:
            file = await store.get_file(conn, file_id, lock=True)
            if file.state not in UNRELEASED:
                return False
            now = bench.clock.now()
            await discard(conn, file, by=WORKER, reason="a payment's time is over", now=now)
            return True

        if await transact(bench.engine, end):
            bench.report.discarded.append(file_id)


async def _advance(bench: _Bench, file: PaymentFile) -> None:
    """Take one claimed file from step to step until it waits or is handed over; give it back."""
    reason: str | None = None
    try:
        with tracing.working("bank-file hand over", [file.id]):
            reason = await _steps(bench, file)
    except StaleFence:
        bench.report.waiting[file.message_id] = "taken over by another worker"
        return
    except CausewayError as error:
        reason = error.render()
    except DBAPIError as error:
        reason = f"the database refused: {error.orig}"
    if reason is not None:
        bench.report.waiting[file.message_id] = reason
    until = bench.clock.now() + LOOK_AGAIN_AFTER
    said = None if reason is None else reason[:TEXT_LENGTH_MAX]
    await transact(
        bench.engine, lambda conn: store.give_back(conn, file, waiting_for=said, until=until)
    )


async def _steps(bench: _Bench, file: PaymentFile) -> str | None:
    """Return why the file waits; None where it does not."""
    gateway = bench.gateways.get(file.account)
    if gateway is None:
        return f"no door to the bank of account {file.account} is set up"
    if file.state is FileState.APPROVED:
        file = await transact(
            bench.engine, lambda conn: release_file(conn, file, now=bench.clock.now())
        )
        if file.state is FileState.DISCARDED:
            bench.report.discarded.append(file.id)
            return None
        bench.report.released.append(file.id)
    copy, stopped = await transact(
        bench.engine, lambda conn: take_copy(conn, file, now=bench.clock.now())
    )
    if copy is None:
        return stopped or None
    said = await _hand_over(gateway, copy)
    after = await transact(
        bench.engine, lambda conn: record_submission(conn, file, said, now=bench.clock.now())
    )
    reached = {
        FileState.SUBMITTED: bench.report.submitted,
        FileState.UNKNOWN: bench.report.unknown,
        FileState.HELD: bench.report.held,
    }
    if after.state in reached:
        reached[after.state].append(file.id)
    return None


async def _hand_over(gateway: BankGateway, file: PaymentFile) -> Submission:
    try:
        with tracing.calling("bank submit"):
            return await gateway.submit(file.name, file.content)
    except OutsideUnavailable as error:
        return Submission(Outcome.UNKNOWN, error.render())
