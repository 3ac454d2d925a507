"""Out of the house: a file is released, then handed over, and again, the same bytes, until the bank has it.

Release is a transaction of its own: the approvals are verified anew, everything that may stop a payout
is asked anew, the claims are debited. Only then is anything handed over, outside of any transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.submission import Outcome, Submission
from custody import payout_rows, payout_store
from custody.banks import payment_store as store
from custody.banks.payment_files import count_available, discard, require_approvers
from custody.banks.payment_model import (
    APPROVALS_MIN,
    HANDED_OVER,
    ON_ITS_WAY,
    FileState,
    LineState,
    PaymentFile,
)
from custody.banks.payment_moves import (
    WORKER,
    close_if_ended,
    move_file,
    move_lines,
    step_payouts,
)
from custody.banks.payment_postings import refused
from custody.errors import NotPossible
from custody.payout_gates import find_unsendable
from custody.payout_model import Payout, PayoutState
from custody.payout_postings import signed
from custody.restore_gate import find_gate
from kernel.errors import Refused, StaleFence
from kernel.events import REASON_LENGTH_MAX, record
from ledger.posting import post, require_applied
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import SamePerson
from registry.model import BANK, Operator, Role
from registry.people import require_operator, require_sha256
from registry.queries import get_bank_account, get_operator

AGAIN_VERB: Final = "payment_file.again"
NEVER_VERB: Final = "payment_file.never"
DECIDERS: Final = (Role.APPROVER, Role.TREASURER, Role.ADMIN)
HOLDERS: Final = (Role.OPERATIONS, Role.TREASURER, Role.APPROVER, Role.FINANCE, Role.ADMIN)
RETRY_AFTER: Final = timedelta(seconds=5)
RETRY_MAX: Final = timedelta(minutes=5)
"""Bytes of which nobody knows are handed over again after 5, 10, 20 … seconds, and for ever this often."""


async def release_file(
    conn: AsyncConnection, claimed: PaymentFile, *, now: datetime
) -> PaymentFile:
    """Debit the claims of an approved file: from here on the bank may have it.

    A file with a payment whose time is over is discarded, and the others go into another.

    Raises:
        Refused: an approval does not count any more, something stops one of its payments, or the
            account does not cover it. Nothing is written then.
        StaleFence: another worker has it.
    """
    file = await _get_claimed(conn, claimed)
    if file.state is not FileState.APPROVED:
        return file
    lines = await store.list_lines(conn, file.id)
    locked = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    payouts = [locked[item.payout_id] for item in lines]
    is_over = any(item.expires_at is not None and item.expires_at <= now for item in payouts)
    # While it is not known whether the database was restored, the bank may have it.
    if is_over and await find_gate(conn) is None:
        return await discard(conn, file, by=WORKER, reason="a payment's time is over", now=now)
    await _require_releasable(conn, file, payouts, now=now)
    batch = [transfer for item in payouts for transfer in signed(item)]
    require_applied(await post(conn, file.book, batch, now=now))
    released, event = await move_file(
        conn, file, FileState.RELEASED, by=WORKER, now=now, released_at=now, waiting_for=""
    )
    await move_lines(conn, lines, LineState.RELEASED)
    events = await step_payouts(
        *(conn, payouts, PayoutState.SIGNED), by=WORKER, now=now, file_id=file.id
    )
    await record(conn, [event, *events])
    return released


async def take_copy(
    conn: AsyncConnection, claimed: PaymentFile, *, now: datetime
) -> tuple[PaymentFile | None, str]:
    """Count a copy of a released file before it leaves the house; return it, or why none may leave.

    A copy that was counted and never left is a doubt more; one that left uncounted would have a later
    rejection taken for the bank's word on the only one. None without a reason: nothing is to be handed
    over any more, for the bank or a person has spoken of the file meanwhile.

    Raises:
        StaleFence: another worker has it.
    """
    file = await _get_claimed(conn, claimed)
    if file.state not in HANDED_OVER:
        return None, ""
    lines = await store.list_lines(conn, file.id)
    payouts = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    stopped = await find_unsendable(conn, list(payouts.values()), now=now)
    if stopped:
        return None, next(iter(stopped.values()))
    count = file.submissions + 1
    await store.update_file(conn, file.id, fence=file.fence, submissions=count)
    return replace(file, submissions=count), ""


async def record_submission(
    conn: AsyncConnection, claimed: PaymentFile, said: Submission, *, now: datetime
) -> PaymentFile:
    """Write what the door said of a copy that `take_copy` has counted.

    Raises:
        StaleFence: another worker has it; what it hears is written then.
    """
    file, detail = await _get_claimed(conn, claimed), said.detail[:REASON_LENGTH_MAX]
    if file.state not in HANDED_OVER:
        # The bank, or a person, spoke of it meanwhile: their word counts.
        return file
    to = _STATES[said.outcome]
    moved, event = await move_file(
        conn,
        file,
        to,
        by=WORKER,
        now=now,
        reason=detail,
        payload={"submissions": file.submissions},
        waiting_for=detail,
        run_after=now + wait_after(file.submissions),
    )
    if to is not file.state:
        await record(conn, [event])
    return moved


async def _get_claimed(conn: AsyncConnection, claimed: PaymentFile) -> PaymentFile:
    """Return a file as it is now, locked, if nobody else has claimed it since."""
    file = await store.get_file(conn, claimed.id, lock=True)
    if file.fence != claimed.fence:
        raise StaleFence(f"payment file {file.id} was claimed by another worker")
    return file


_STATES: Final[Mapping[Outcome, FileState]] = {
    Outcome.TAKEN: FileState.SUBMITTED,
    Outcome.UNKNOWN: FileState.UNKNOWN,
    Outcome.REFUSED: FileState.HELD,
}


def wait_after(submissions: int) -> timedelta:
    """Return how long to wait after the so-many-th submission without an answer."""
    return min(RETRY_AFTER * (1 << min(max(submissions - 1, 0), 16)), RETRY_MAX)


async def hold_file(
    conn: AsyncConnection, file_id: UUID, *, by: Operator, reason: str, now: datetime
) -> PaymentFile:
    """Stop handing a file over: one person does, because it only makes things safer."""
    person = await require_operator(conn, by, *HOLDERS)
    file = await store.get_file(conn, file_id, lock=True)
    if file.state is FileState.HELD:
        return file
    moved, event = await move_file(
        *(conn, file, FileState.HELD), by=person.code, now=now, reason=reason, waiting_for=reason
    )
    await record(conn, [event])
    return moved


def decision_bytes(verb: str, file: PaymentFile, evidence: str, reason: str) -> bytes:
    """Return what two people sign about a file on hold.

    Args:
        verb: `AGAIN_VERB`: the same bytes once more; `NEVER_VERB`: the bank has said, in a document
            whose SHA-256 is *evidence*, that it has paid and will pay nothing of it.
    """
    fields = {
        "file": file.id,
        "sha256": file.sha256,
        "submissions": file.submissions,
        "evidence": evidence,
        "reason": reason,
    }
    return signing_bytes(verb, fields)


async def decide_held(
    conn: AsyncConnection,
    file_id: UUID,
    *,
    verb: str,
    signatures: Mapping[str, bytes],
    evidence: str,
    reason: str,
    now: datetime,
) -> PaymentFile:
    """End a hold as two people say: see `decision_bytes`.

    Raises:
        NotPossible: it is not on hold.
        Refused: not two different people, one may not, or a signature is not theirs or not of this.
    """
    file = await store.get_file(conn, file_id, lock=True)
    if file.state is not FileState.HELD:
        raise NotPossible(f"payment file {file.message_id} is {file.state}, not on hold")
    if not reason.strip():
        raise NotPossible("a decision needs a reason")
    await _require_two(conn, decision_bytes(verb, file, evidence, reason), signatures)
    by = " and ".join(sorted(signatures))
    if verb == AGAIN_VERB:
        moved, event = await move_file(
            *(conn, file, FileState.RELEASED), by=by, now=now, reason=reason, run_after=now
        )
        await record(conn, [event])
        return moved
    require_sha256(evidence, "bank's word")
    lines = [item for item in await store.list_lines(conn, file_id) if item.state in ON_ITS_WAY]
    locked = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    batch = [transfer for item in locked.values() for transfer in refused(item)]
    require_applied(await post(conn, file.book, batch, now=now))
    await move_lines(conn, lines, LineState.REFUSED, bank_reason=f"evidence {evidence}")
    events = await step_payouts(
        *(conn, list(locked.values()), PayoutState.REFUSED),
        by=by,
        now=now,
        file_id=file.id,
        reason=reason,
    )
    await record(conn, [*events, *await close_if_ended(conn, file, by=by, now=now)])
    return await store.get_file(conn, file_id)


async def _require_releasable(
    conn: AsyncConnection, file: PaymentFile, payouts: list[Payout], *, now: datetime
) -> None:
    approvals = await store.list_approvals(conn, file.id)
    if await require_approvers(conn, file, approvals) < APPROVALS_MIN:
        raise Refused(f"payment file {file.message_id} has {len(approvals)} approvals")
    if sha256(file.content).hexdigest() != file.sha256:
        raise Refused(f"payment file {file.message_id} is not what was approved")
    if any(item.state is not PayoutState.ALLOCATED for item in payouts):
        raise Refused("a payment of the file is not allocated to it any more")
    account = await get_bank_account(conn, file.account)
    if not account.active:
        raise NotPossible(f"nothing is paid from bank account {account.code} any more")
    stopped = await find_unsendable(conn, payouts, now=now)
    if stopped:
        payout_id, reason = next(iter(stopped.items()))
        raise NotPossible(f"payout {payout_id} is stopped: {reason}")
    await payout_store.lock_sender(conn, BANK, account.iban, account.code)
    left = (await count_available(conn, file.book, [account]))[account.code]
    if left < 0:
        raise NotPossible(
            f"bank account {account.code} lacks {-left} {account.asset} (smallest units)"
        )


async def _require_two(
    conn: AsyncConnection, payload: bytes, signatures: Mapping[str, bytes]
) -> None:
    people = [await get_operator(conn, code) for code in sorted(signatures)]
    if len({item.public_key for item in people}) < APPROVALS_MIN:
        raise SamePerson("two people decide about a payment file on hold", remedy="Ask another")
    for item in people:
        require_role(item, *DECIDERS)
        verify_signature(item, payload, signatures[item.code])
