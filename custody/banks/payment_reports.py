"""Status reports of banks, taken in: kept as they came, applied once, and never believed too far.

A claim is given back only on the bank's own word that it will not pay: a rejected line, or a rejected
file of which one copy only was ever handed over and of which nothing was accepted. Whatever else
contradicts itself puts the file on hold, for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.errors import FileUnreadable
from banks.pain002 import Meaning, Status, StatusReport, meaning_of, read_report
from custody import payout_rows
from custody.banks import payment_store as store
from custody.banks.payment_model import (
    ON_ITS_WAY,
    OUT,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
    ReportState,
)
from custody.banks.payment_moves import close_if_ended, move_each_line, move_file, step_payouts
from custody.banks.payment_postings import refused
from custody.payout_model import PayoutState
from kernel.events import REASON_LENGTH_MAX, DomainEvent, record
from kernel.ids import derive_id
from ledger.posting import post, require_applied

REPORT: Final = "payment_report"
_ONCE_ACCEPTED: Final = frozenset({LineState.ACCEPTED, LineState.BOOKED, LineState.RETURNED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenReport:
    """What became of a report.

    Attributes:
        file_id: the file that it speaks of; None where that is not known.
        known: the same bytes had come before, so nothing was done now.
        refused, accepted: numbers of the lines that it moved.
        detail: why it is in quarantine, or what in it people have to look at; "" otherwise.
    """

    id: UUID
    state: ReportState
    file_id: UUID | None = None
    known: bool = False
    refused: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a report means for a file: its lines by what happens to them, and why people must look."""

    refused: tuple[tuple[PaymentLine, Status], ...]
    accepted: tuple[tuple[PaymentLine, Status], ...]
    doubt: str


async def take_report(conn: AsyncConnection, raw: bytes, *, by: str, now: datetime) -> TakenReport:
    """Keep a status report and do what it says; the same bytes again do nothing.

    What cannot be read, or speaks of no file that is out, is kept in quarantine and does nothing.

    Args:
        raw: the report as it came.
        by: the operator or process that received it.
    """
    known = await _find(conn, sha256(raw).hexdigest())
    if known is not None:
        return known
    try:
        report = read_report(raw)
    except FileUnreadable as error:
        return await _keep(conn, raw, None, error.what, by=by, now=now)
    file = await store.find_file(conn, report.message_id, lock=True)
    if file is None or file.state not in OUT:
        return await _keep(conn, raw, None, "it speaks of no file that is out", by=by, now=now)
    lines = await store.list_lines(conn, file.id)
    reason = find_mismatch(report, file, lines)
    if reason:
        return await _keep(conn, raw, None, reason, by=by, now=now)
    return await _apply(conn, raw, file, report, judge(report, file, lines), by=by, now=now)


def find_mismatch(report: StatusReport, file: PaymentFile, lines: Sequence[PaymentLine]) -> str:
    """Return why a report cannot be of this file; "" if it can."""
    if report.block_id not in {"", file.message_id}:
        return f"it speaks of block {report.block_id[:40]!r}, which the file does not have"
    ours = {line.end_to_end for line in lines}
    said = [item.end_to_end for item in report.payments]
    strange = [text for text in said if text not in ours]
    if strange:
        return f"it speaks of payment {strange[0][:40]!r}, which the file does not have"
    return "it speaks of a payment twice" if len(set(said)) != len(said) else ""


def judge(report: StatusReport, file: PaymentFile, lines: Sequence[PaymentLine]) -> Judged:
    """Return what a report means: its word on a payment counts before that on all of them. Pure."""
    own = {item.end_to_end: item.status for item in report.payments}
    whole = next(
        (s for s in (report.block, report.group) if meaning_of(s) is not Meaning.OPEN), None
    )
    refusals: list[tuple[PaymentLine, Status]] = []
    accepted: list[tuple[PaymentLine, Status]] = []
    doubt = _doubt_whole(whole, file, lines, own.values())
    for line in lines:
        status = own.get(line.end_to_end, Status())
        meaning = meaning_of(status)
        if meaning is Meaning.OPEN and whole is not None:
            status, meaning = whole, meaning_of(whole)
            if meaning is Meaning.REFUSED and doubt:
                continue
        match meaning:
            case Meaning.REFUSED if line.state is LineState.ACCEPTED and file.submissions > 1:
                doubt = (
                    doubt or f"payment {line.number} is refused in one copy, accepted in another"
                )
            case Meaning.REFUSED if line.state in ON_ITS_WAY:
                refusals.append((line, status))
            case Meaning.REFUSED if line.state in {LineState.BOOKED, LineState.RETURNED}:
                doubt = doubt or f"payment {line.number} is refused, and was booked"
            case Meaning.TAKEN | Meaning.DUPLICATE if line.state is LineState.RELEASED:
                accepted.append((line, status))
            case Meaning.TAKEN if line.state is LineState.REFUSED:
                doubt = doubt or f"payment {line.number} is accepted, and was refused before"
            case _:
                pass
    return Judged(tuple(refusals), tuple(accepted), doubt)


def _doubt_whole(
    whole: Status | None, file: PaymentFile, lines: Sequence[PaymentLine], own: Iterable[Status]
) -> str:
    """Return why a rejection of the whole file may be of one copy of it only."""
    if whole is None or meaning_of(whole) is not Meaning.REFUSED:
        return ""
    if file.submissions > 1:
        return f"the file is rejected, and {file.submissions} copies of it were handed over"
    if any(line.state in _ONCE_ACCEPTED for line in lines):
        return "the file is rejected, and payments of it were accepted before"
    if any(meaning_of(item) in {Meaning.TAKEN, Meaning.DUPLICATE} for item in own):
        return "the file is rejected, and payments of it are accepted"
    return ""


async def _apply(
    conn: AsyncConnection,
    raw: bytes,
    file: PaymentFile,
    report: StatusReport,
    judged: Judged,
    *,
    by: str,
    now: datetime,
) -> TakenReport:
    moving = [line for line, _ in (*judged.refused, *judged.accepted)]
    payouts = await payout_rows.lock_many(conn, [line.payout_id for line in moving])
    taken = await _keep(conn, raw, file, judged.doubt, by=by, now=now)
    if taken.known:
        return taken
    ended = [payouts[line.payout_id] for line, _ in judged.refused]
    batch = [transfer for item in ended for transfer in refused(item)]
    if batch:
        require_applied(await post(conn, file.book, batch, now=now))
    events: list[DomainEvent] = []
    for to, moved in ((LineState.REFUSED, judged.refused), (LineState.ACCEPTED, judged.accepted)):
        said = [(line, {"bank_status": s.code, "bank_reason": s.reason}) for line, s in moved]
        await move_each_line(conn, said, to)
    for line, status in judged.refused:
        events += await step_payouts(
            *(conn, [payouts[line.payout_id]], PayoutState.REFUSED),
            by=by,
            now=now,
            file_id=file.id,
            reason=status.reason,
        )
    await record(conn, events)
    await _move_file(conn, file, report, judged, by=by, now=now)
    return TakenReport(
        id=taken.id,
        state=taken.state,
        file_id=file.id,
        refused=tuple(line.number for line, _ in judged.refused),
        accepted=tuple(line.number for line, _ in judged.accepted),
        detail=judged.doubt,
    )


async def _move_file(
    conn: AsyncConnection,
    file: PaymentFile,
    report: StatusReport,
    judged: Judged,
    *,
    by: str,
    now: datetime,
) -> None:
    """The bank spoke of the file, so it has it; people look at what contradicts itself."""
    to = FileState.HELD if judged.doubt else FileState.SUBMITTED
    if file.state is FileState.CLOSED:
        to = FileState.CLOSED
    # The word of the bank counts, whatever a worker is just hearing at the door.
    moved, event = await move_file(
        conn,
        file,
        to,
        by=by,
        now=now,
        reason=judged.doubt,
        name="PaymentFileReported",
        payload={"status": report.group.code, "reason": report.group.reason},
        bank_status=report.group.code,
        waiting_for=judged.doubt[:REASON_LENGTH_MAX],
    )
    await record(conn, [event])
    if to is not FileState.HELD:
        await record(conn, await close_if_ended(conn, moved, by=by, now=now))


async def _keep(
    conn: AsyncConnection,
    raw: bytes,
    file: PaymentFile | None,
    detail: str,
    *,
    by: str,
    now: datetime,
) -> TakenReport:
    digest = sha256(raw).hexdigest()
    taken = TakenReport(
        id=derive_id(now, REPORT, digest),
        state=ReportState.QUARANTINED if file is None else ReportState.APPLIED,
        file_id=None if file is None else file.id,
        detail=detail[:REASON_LENGTH_MAX],
    )
    values = {
        "id": taken.id,
        "content": raw,
        "sha256": digest,
        "file_id": taken.file_id,
        "state": taken.state,
        "detail": taken.detail,
        "received_by": by,
        "received_at": now,
    }
    if await store.insert_report(conn, values):
        return taken
    known = await _find(conn, digest)
    assert known is not None, "the same bytes stood in the way"
    return known


async def _find(conn: AsyncConnection, digest: str) -> TakenReport | None:
    row = await store.find_report(conn, digest)
    if row is None:
        return None
    return TakenReport(
        id=row.id,
        state=ReportState(row.state),
        file_id=row.file_id,
        known=True,
        detail=row.detail,
    )
