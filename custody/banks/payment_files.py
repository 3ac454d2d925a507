"""Payment files before they are out: drafted, approved by two people over their hash, or discarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.amounts import is_payable
from banks.pain001 import Payment, PaymentOrder, write_file
from banks.payee import Payee
from custody import payout_rows, payout_store
from custody.banks import payment_store as store
from custody.banks.payment_model import (
    APPROVALS_MIN,
    LINES_MAX,
    UNRELEASED,
    FileApproval,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
)
from custody.banks.payment_moves import FILE, move_file, move_lines, step_payouts
from custody.errors import NotPossible
from custody.model import bank_account_path
from custody.payout_gates import find_unsendable
from custody.payout_model import Payout, PayoutState
from kernel.errors import Refused
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.queries import get_balances
from registry.authority import require_role, signing_bytes, verify_signature
from registry.calendars import Calendar, is_business_day
from registry.cutoffs import earliest_value_date
from registry.errors import SamePerson
from registry.kept_calendars import find_cutoffs
from registry.model import BANK, BankAccount, Operator, Role
from registry.people import require_operator
from registry.queries import get_asset, get_bank_account, get_entity, get_operator
from registry.rail_cutoffs_model import RailCutoff

APPROVE_VERB: Final = "payment_file.approve"
APPROVERS: Final = (Role.APPROVER, Role.TREASURER)
DISCARDERS: Final = (Role.APPROVER, Role.TREASURER, Role.OPERATIONS)
LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)
CALENDARS: Final[Mapping[str, Calendar]] = {"EUR": Calendar.TARGET, "USD": Calendar.FEDWIRE}


def execution_day(asset: str, now: datetime, cutoff: RailCutoff | None = None) -> date:
    """Return the first day on which a bank can still pay *asset* after *now*. Pure.

    Args:
        cutoff: what two people have set for the asset and banks: it counts in place of the payment
            system's own, for it is what the bank has agreed to.
    """
    calendar = CALENDARS.get(asset, Calendar.WEEKDAYS)
    if cutoff is None:
        return earliest_value_date(now, [calendar])
    day = cutoff.day_of(now)
    while not is_business_day(calendar, day) or cutoff.at(day) <= now:
        day += timedelta(days=1)
    return day


def end_to_end_of(payout_id: UUID) -> str:
    """Return the EndToEndId of a payout: 32 of its 35 characters, the same in every file."""
    return payout_id.hex


async def count_available(
    conn: AsyncConnection, book: int, accounts: Sequence[BankAccount]
) -> dict[str, int]:
    """Return what may still be promised from each account: its balance less what files will take."""
    keys = {(bank_account_path(item.code), item.asset) for item in accounts}
    held = await get_balances(conn, book, keys)
    promised = await store.sum_promised(conn, [item.code for item in accounts])
    return {
        item.code: (held[key].available if key in held else 0) - promised[item.code]
        for item in accounts
        for key in ((bank_account_path(item.code), item.asset),)
    }


async def draft_file(
    conn: AsyncConnection,
    account: str,
    *,
    book: int,
    by: str,
    now: datetime,
    execution_date: date | None = None,
    limit: int = LINES_MAX,
) -> PaymentFile | None:
    """Write a file of the account's approved payouts, oldest first; None when none can go into it.

    What may not go now (frozen, not screened, not allowed any more, not covered by the account) says so
    and waits. The bytes are stored before anybody sees them.

    Args:
        by: an operator, or the process: whoever it is approves the file never.
        execution_date: the day on which the bank shall pay; None: the first one possible.

    Raises:
        Refused: the account is not registered, nothing is paid from it any more, or its bank pays
            nothing on that day any more.
    """
    place = await get_bank_account(conn, account)
    if not place.active:
        raise NotPossible(f"nothing is paid from bank account {account} any more")
    due = await store.list_due(conn, account, book, now=now, limit=min(limit, LINES_MAX))
    locked = await payout_rows.lock_many(conn, [item.id for item in due])
    payouts = [locked[item.id] for item in due if locked[item.id].state is PayoutState.APPROVED]
    await payout_store.lock_sender(conn, BANK, place.iban, account)
    chosen = await _choose(conn, place, payouts, book=book, now=now)
    if not chosen:
        return None
    cutoff = (await find_cutoffs(conn, {place.asset})).get((place.asset, BANK))
    first = execution_day(place.asset, now, cutoff)
    if execution_date is not None and execution_date < first:
        raise NotPossible(
            f"bank account {account} pays nothing before {first.isoformat()} any more",
            remedy="Name that day or a later one",
        )
    day = execution_date or first
    file, lines = await _write(conn, place, chosen, book=book, by=by, day=day, now=now)
    await store.insert_file(conn, file, lines)
    waits = f"file {file.message_id} waits for its approvals"
    events = await step_payouts(
        *(conn, chosen, PayoutState.ALLOCATED),
        by=by,
        now=now,
        file_id=file.id,
        waiting_for=waits,
    )
    await record(conn, [_drafted(file), *events])
    return file


async def approve_file(
    conn: AsyncConnection, file_id: UUID, *, by: Operator, signature: bytes, now: datetime
) -> PaymentFile:
    """Add a person's approval of exactly these bytes; with the second one the file is APPROVED.

    Args:
        by: an approver or treasurer who neither had it made nor asked for one of its payments.
        signature: Ed25519 over `approval_bytes` of the file.

    Raises:
        Refused: the person may not, or the signature is not theirs or not of this file.
    """
    file = await store.get_file(conn, file_id, lock=True)
    if file.state is not FileState.DRAFTED:
        raise NotPossible(
            f"payment file {file.message_id} is {file.state}, not waiting for approval"
        )
    person = await require_operator(conn, by, *APPROVERS)
    given = await store.list_approvals(conn, file_id)
    lines = await store.list_lines(conn, file_id)
    payouts = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    asked = {item.requested_by for item in payouts.values()}
    if person.code == file.drafted_by or person.code in asked:
        raise Refused(
            f"{person.code} had payment file {file.message_id} made, or asked for one of its payments",
            remedy="Ask another operator",
        )
    approval = FileApproval(file_id=file_id, operator=person.code, signature=signature, at=now)
    await require_approvers(conn, file, [*given, approval])
    await store.insert_approval(conn, approval)
    if len(given) + 1 < APPROVALS_MIN:
        to, name = FileState.DRAFTED, "PaymentFileApprovalGiven"
    else:
        to, name = FileState.APPROVED, "PaymentFileApproved"
    moved, event = await move_file(
        conn, file, to, by=person.code, now=now, name=name, run_after=now
    )
    await record(conn, [event])
    return moved


def approval_bytes(file: PaymentFile) -> bytes:
    """Return what a person signs to approve a file: its hash, and what people can compare."""
    return signing_bytes(
        APPROVE_VERB,
        {
            "file": file.id,
            "message_id": file.message_id,
            "account": file.account,
            "sha256": file.sha256,
            "line_count": file.line_count,
            "total": str(file.total),
            "asset": file.asset,
            "execution_date": file.execution_date.isoformat(),
        },
    )


async def require_approvers(
    conn: AsyncConnection, file: PaymentFile, approvals: Sequence[FileApproval]
) -> int:
    """Refuse an approval that does not hold now; return how many different people there are.

    Keys may have been revoked, roles taken away, and two codes may be one key.

    Raises:
        Refused: names whose does not count, and why.
    """
    payload = approval_bytes(file)
    people: list[Operator] = []
    for item in approvals:
        person = await get_operator(conn, item.operator)
        require_role(person, *APPROVERS)
        verify_signature(person, payload, item.signature)
        if any(person.public_key == other.public_key for other in people):
            raise SamePerson(
                f"{person.code} has approved payment file {file.message_id} already",
                remedy="Ask another operator",
            )
        people.append(person)
    return len(people)


async def discard_file(
    conn: AsyncConnection, file_id: UUID, *, by: Operator, reason: str, now: datetime
) -> PaymentFile:
    """Take back a file that was never released: its payouts may go into another.

    Raises:
        NotPossible: it is out, so the bank may have it.
    """
    person = await require_operator(conn, by, *DISCARDERS)
    file = await store.get_file(conn, file_id, lock=True)
    if file.state is FileState.DISCARDED:
        return file
    if file.state not in UNRELEASED:
        raise NotPossible(
            f"payment file {file.message_id} is {file.state}: the bank may have it",
            remedy="Wait for what the bank says",
        )
    return await discard(conn, file, by=person.code, reason=reason, now=now)


async def discard(
    conn: AsyncConnection, file: PaymentFile, *, by: str, reason: str, now: datetime
) -> PaymentFile:
    """Discard a locked file; see `discard_file`."""
    lines = await store.list_lines(conn, file.id)
    locked = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    moved, event = await move_file(
        conn, file, FileState.DISCARDED, by=by, now=now, reason=reason, waiting_for=""
    )
    await move_lines(conn, lines, LineState.DISCARDED)
    events = await step_payouts(
        *(conn, list(locked.values()), PayoutState.APPROVED),
        by=by,
        now=now,
        file_id=file.id,
        reason=reason,
    )
    await record(conn, [event, *events])
    return moved


async def _choose(
    conn: AsyncConnection,
    account: BankAccount,
    payouts: Sequence[Payout],
    *,
    book: int,
    now: datetime,
) -> list[Payout]:
    """Return the payouts that may go now, and write down why the others wait."""
    stopped = await find_unsendable(conn, payouts, now=now)
    free = (await count_available(conn, book, [account]))[account.code]
    asset, total = await get_asset(conn, account.asset), 0
    chosen: list[Payout] = []
    waiting: list[tuple[Payout, str]] = []
    for item in payouts:
        if item.id in stopped:
            waiting.append((item, stopped[item.id]))
        elif item.expires_at is not None and item.expires_at <= now:
            waiting.append((item, "its time is over"))
        elif item.amount > free:
            path = bank_account_path(account.code)
            waiting.append((item, f"{path} has {free} {account.asset} (smallest units) free"))
        elif not is_payable(total + item.amount, asset):
            waiting.append((item, "the sum of the file has no room for it: it goes into the next"))
        else:
            free, total = free - item.amount, total + item.amount
            chosen.append(item)
    until = now + LOOK_AGAIN_AFTER
    for item, reason in waiting:
        await payout_store.update_payout(conn, item.id, waiting_for=reason, run_after=until)
    return chosen


async def _write(
    conn: AsyncConnection,
    account: BankAccount,
    payouts: Sequence[Payout],
    *,
    book: int,
    by: str,
    day: date,
    now: datetime,
) -> tuple[PaymentFile, list[PaymentLine]]:
    file_id = derive_id(now, FILE, account.code, *(item.id for item in payouts))
    message_id = f"CW{file_id.hex}"
    content = write_file(
        PaymentOrder(
            message_id=message_id,
            created_at=now,
            execution_date=day,
            debtor=(await get_entity(conn, account.entity)).name,
            iban=account.iban,
            bic=account.bic,
            asset=await get_asset(conn, account.asset),
            payments=[
                Payment(
                    end_to_end=end_to_end_of(item.id),
                    amount=item.amount,
                    payee=Payee.parse(item.destination),
                    remittance=item.client_ref,
                )
                for item in payouts
            ],
        )
    )
    file = PaymentFile(
        id=file_id,
        book=book,
        account=account.code,
        asset=account.asset,
        message_id=message_id,
        execution_date=day,
        content=content,
        sha256=sha256(content).hexdigest(),
        line_count=len(payouts),
        total=sum(item.amount for item in payouts),
        state=FileState.DRAFTED,
        drafted_by=by,
        drafted_at=now,
        submissions=0,
        waiting_for="",
        bank_status="",
        run_after=now,
        released_at=None,
        fence=0,
    )
    lines = [
        PaymentLine(
            file_id=file_id,
            number=number,
            payout_id=item.id,
            end_to_end=end_to_end_of(item.id),
            amount=item.amount,
            destination=item.destination,
            state=LineState.WRITTEN,
        )
        for number, item in enumerate(payouts, start=1)
    ]
    return file, lines


def _drafted(file: PaymentFile) -> DomainEvent:
    return DomainEvent(
        entity_type=FILE,
        entity_id=file.id,
        version=1,
        name="PaymentFileDrafted",
        at=file.drafted_at,
        actor=file.drafted_by,
        to_state=file.state,
        payload={
            "account": file.account,
            "sha256": file.sha256,
            "line_count": file.line_count,
            "total": str(file.total),
            "execution_date": file.execution_date.isoformat(),
        },
    )
