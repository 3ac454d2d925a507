"""What a statement says of our payments: booked, so final; or come back after that.

Implements `custody.banks.statement_ports.Payments`: rows are locked and written here, postings and events are
planned, and whoever imports the statement posts them with its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_rows
from custody.banks import payment_store as store
from custody.banks.entry_model import BookedEntry
from custody.banks.payment_model import ON_ITS_WAY, LineState, PaymentFile, PaymentLine
from custody.banks.payment_moves import (
    WORKER,
    close_if_ended,
    move_each_line,
    move_lines,
    step_payouts,
)
from custody.banks.payment_postings import booked, returned
from custody.banks.statement_ports import Booked
from custody.payout_events import PAYOUT
from custody.payout_model import Payout, PayoutState
from custody.plan import Plan
from kernel.events import DomainEvent, next_version

RETURNED: Final = "PayoutReturned"
KEPT_UNSAID_PART: Final = 100
"""Of what comes back banks keep charges; up to one in so many counts as one where they do not say it."""


@dataclass(slots=True)
class _Desk:
    """Lines among the entries by EndToEndId, with their files and payouts, locked.

    Attributes:
        booked: the debit that ends each payment.
        taken: ids of the entries that are ours.
    """

    lines: dict[str, PaymentLine]
    files: dict[UUID, PaymentFile]
    payouts: dict[UUID, Payout]
    booked: dict[str, BookedEntry] = field(default_factory=dict)
    taken: set[UUID] = field(default_factory=set)
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True, slots=True)
class BankPayments:
    """Our payments, as a statement's import asks for them."""

    async def record_booked(
        self, conn: AsyncConnection, entries: Sequence[BookedEntry], *, now: datetime
    ) -> Booked:
        """End the payments that these lines book, and take back those that came back.

        A line is ours if its EndToEndId, account, currency and amount are those of a payment that is
        out; a charge inside the amount is told from it only where the bank says it. A second debit of the
        same payment is not ours: it stays in suspense, where people see it. Nor is a credit that the bank
        does not call a return: whoever was paid knows the reference, and may send what they like with it.
        """
        found = await store.find_lines(conn, {item.end_to_end for item in entries})
        if not found:
            return Booked()
        files = await store.lock_files(conn, {line.file_id for line, _ in found.values()})
        payouts = await payout_rows.lock_many(conn, [line.payout_id for line, _ in found.values()])
        # Read again: what stood before the locks may have been moved.
        again = await store.find_lines(conn, found)
        lines = {key: line for key, (line, file) in again.items() if file.id in files}
        desk = _Desk(lines, files, payouts)
        came_back = _sort(desk, entries)
        await _book(conn, desk, now)
        for item in came_back:
            await _return(conn, desk, item, now)
        for file in desk.files.values():
            desk.plan.tell(*await close_if_ended(conn, file, by=WORKER, now=now))
        return Booked(frozenset(desk.taken), desk.plan)


def _sort(desk: _Desk, entries: Sequence[BookedEntry]) -> list[BookedEntry]:
    """Find the debits that end a payment; return the credits that take back one that is booked."""
    came_back: dict[str, BookedEntry] = {}
    for item in entries:
        key, line = item.end_to_end, desk.lines.get(item.end_to_end)
        if line is None or not _is_from(item, desk.files[line.file_id]):
            continue
        is_booked = line.state is LineState.BOOKED or key in desk.booked
        if _is_debit_of(item, line) and line.state in ON_ITS_WAY:
            if key not in desk.booked:
                desk.booked[key] = item
        elif is_booked and key not in came_back and _is_return_of(item, line):
            came_back[key] = item
    return list(came_back.values())


def _is_debit_of(item: BookedEntry, line: PaymentLine) -> bool:
    return -item.amount in {line.amount, line.amount + item.charge} and not item.reversal


def _is_return_of(item: BookedEntry, line: PaymentLine) -> bool:
    kept = line.amount - item.amount
    called_so = item.reversal or bool(item.return_reason)
    is_small = kept * KEPT_UNSAID_PART <= line.amount
    return called_so and 0 <= kept < line.amount and (is_small or kept == item.charge)


def _is_from(item: BookedEntry, file: PaymentFile) -> bool:
    return (item.account, item.asset, item.book) == (file.account, file.asset, file.book)


async def _book(conn: AsyncConnection, desk: _Desk, now: datetime) -> None:
    """End every payment that a debit books, in as many statements as files."""
    moves = [(desk.lines[key], {"booked_entry": item.id}) for key, item in desk.booked.items()]
    for line in await move_each_line(conn, moves, LineState.BOOKED):
        desk.lines[line.end_to_end] = line
    for file_id in desk.files:
        mine = [key for key in desk.booked if desk.lines[key].file_id == file_id]
        payouts = [desk.payouts[desk.lines[key].payout_id] for key in mine]
        desk.plan.tell(
            *await step_payouts(
                *(conn, payouts, PayoutState.CONFIRMED), by=WORKER, now=now, file_id=file_id
            )
        )
        for key, payout in zip(mine, payouts, strict=True):
            desk.payouts[payout.id] = replace(payout, state=PayoutState.CONFIRMED)
            desk.taken.add(desk.booked[key].id)
            desk.plan.post(*booked(payout, desk.booked[key]))


async def _return(conn: AsyncConnection, desk: _Desk, item: BookedEntry, now: datetime) -> None:
    line = desk.lines[item.end_to_end]
    (after,) = await move_lines(
        *(conn, [line], LineState.RETURNED),
        returned_entry=item.id,
        bank_reason=item.return_reason,
    )
    desk.lines[item.end_to_end] = after
    desk.taken.add(item.id)
    payout = desk.payouts[line.payout_id]
    # The payment was final and stays so; that the money came back is a fact of its own.
    version = await next_version(conn, PAYOUT, payout.id)
    told = sum(1 for event in desk.plan.events if event.entity_id == payout.id)
    desk.plan.tell(
        DomainEvent(
            entity_type=PAYOUT,
            entity_id=payout.id,
            version=version + told,
            name=RETURNED,
            at=now,
            actor=WORKER,
            reason=item.return_reason,
            from_state=payout.state,
            to_state=payout.state,
            payload={
                "entry": str(item.id),
                "amount": str(item.amount),
                "kept": str(payout.amount - item.amount),
            },
        )
    )
    desk.plan.post(*returned(payout, item))
