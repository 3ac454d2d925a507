"""What is signed about manual journals and periods, and whether it may be done. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Final

from kernel.errors import BadInput
from ledger.journals.errors import NotOpen, NotOurs, PeriodNotClosable, ReferenceTaken
from ledger.journals.model import (
    LIFETIME,
    PERIOD_APPROVALS,
    JournalRequest,
    JournalState,
    ManualJournal,
    PeriodProposal,
    PeriodState,
)
from ledger.journals.templates import (
    Airdrop,
    Staking,
    Template,
    WriteOff,
    template_name,
    to_content,
)
from ledger.model import PeriodEventKind
from ledger.opaque import require_token
from registry.authority import signing_bytes

APPROVE_JOURNAL: Final = "ledger.manual-journal.approve"
APPROVE_PERIOD: Final = "ledger.period.approve"
REASON_LENGTH_MAX: Final = 500
SHOWN_MAX: Final = 5


def journal_bytes(item: ManualJournal) -> bytes:
    """Return what an approver signs about a manual journal: all of it."""
    request = item.request
    return signing_bytes(
        APPROVE_JOURNAL,
        {
            "journal": item.id,
            "book": item.book,
            "reference": request.reference,
            "template": template_name(request.template),
            "content": to_content(request.template),
            "reason": request.reason,
            "attachment": request.attachment,
            "effective_on": request.effective_on.isoformat(),
            "proposed_by": item.proposed_by,
        },
    )


def period_bytes(item: PeriodProposal) -> bytes:
    """Return what an approver signs about the close or the reopening of a period."""
    return signing_bytes(
        APPROVE_PERIOD,
        {
            "proposal": item.id,
            "book": item.book,
            "kind": item.kind.value,
            "through": item.through.isoformat(),
            "reason": item.reason,
            "proposed_by": item.proposed_by,
        },
    )


def decide_request(
    request: JournalRequest, *, closed_through: date | None, block_time: datetime, now: datetime
) -> None:
    """Refuse a manual journal that nobody could approve.

    Raises:
        BadInput: no reason, a reference that is not opaque, or a day that has not come yet.
        PeriodNotClosable: its day is in a closed period.
    """
    require_reason(request.reason)
    require_token(request.reference, "reference")
    if not request.reference:
        raise BadInput("a manual journal needs a reference of your own", remedy="Name it: mj-17")
    today = current_day(block_time, now)
    if request.effective_on > today:
        raise BadInput(
            f"{request.effective_on} has not come yet in the book, where it is {today}",
            remedy="Propose it when the day has come",
        )
    if closed_through is not None and request.effective_on <= closed_through:
        raise PeriodNotClosable(
            f"the period up to {closed_through} is closed, so nothing can count from "
            f"{request.effective_on}",
            remedy="Take a day of the open period, or have the closed one opened again",
        )


def require_same(asked: JournalRequest, known: ManualJournal) -> None:
    """Refuse when a reference names a journal of other content; says in which field."""
    for name in ("template", "attachment", "effective_on", "reason"):
        if getattr(asked, name) != getattr(known.request, name):
            raise ReferenceTaken(
                f"{asked.reference} is on record with another {name.replace('_', ' ')}",
                where=f"manual journal {known.id}",
                remedy="Use a reference of its own for a new journal",
            )


def require_open_journal(item: ManualJournal, now: datetime | None = None) -> None:
    """Refuse what was decided before; with *now*, also what is too old to be approved."""
    if item.state is not JournalState.PROPOSED:
        raise NotOpen(f"manual journal {item.id} is {item.state}", remedy="Propose a new one")
    _require_young(f"manual journal {item.id}", item.proposed_at, now)


def require_open_period(item: PeriodProposal, now: datetime | None = None) -> None:
    """Refuse what was decided before; with *now*, also what is too old to be approved."""
    if item.state is not PeriodState.PROPOSED:
        raise NotOpen(f"period proposal {item.id} is {item.state}", remedy="Propose it anew")
    _require_young(f"period proposal {item.id}", item.proposed_at, now)


def decide_taking(template: Template, *, standing: int) -> None:
    """Refuse to write off more than is owed, or to take more from suspense than has arrived.

    Args:
        template: one that has an `unguarded_source`.
        standing: the balance of that account less what is reserved to leave it.

    Raises:
        NotOurs: names both amounts, in smallest units.
    """
    match template:
        case WriteOff() if template.amount > standing:
            raise NotOurs(
                f"{template.account} owes {standing} units of {template.asset}, {template.amount} "
                "cannot be written off",
                remedy="Propose what is owed",
            )
        case Staking() | Airdrop() if template.amount > standing:
            raise NotOurs(
                f"{template.received_on} has {standing} units of {template.asset}, "
                f"{template.amount} cannot be taken from it",
                remedy="Propose what has arrived",
            )
        case _:
            pass


def decide_period(
    kind: PeriodEventKind,
    through: date,
    *,
    closed_through: date | None,
    block_time: datetime,
    now: datetime,
    open_journals: Iterable[ManualJournal],
    sums: Mapping[str, int],
) -> None:
    """Refuse to close or reopen a period at which something is not in order.

    Args:
        kind: what is to be done.
        through: the last day of the period (UTC); of a reopening, the last day that stays closed.
        closed_through: the last day that is closed now, if any.
        block_time: of the book's last block.
        now: the time of the decision; the later of both is the book's time.
        open_journals: manual journals that are proposed and not decided.
        sums: debits less credits of the trial balance, by asset.

    Raises:
        PeriodNotClosable: names everything that stands in the way.
    """
    if kind is PeriodEventKind.REOPENED:
        if closed_through is None or through >= closed_through:
            raise PeriodNotClosable(
                f"no day after {through} is closed in this book",
                where="nothing is" if closed_through is None else f"up to {closed_through} it is",
                remedy="Name the last day that shall stay closed",
            )
        return
    faults = list(_close_faults(through, closed_through, current_day(block_time, now)))
    waiting = [item for item in open_journals if item.request.effective_on <= through]
    if waiting:
        named = ", ".join(item.request.reference for item in waiting[:SHOWN_MAX])
        more = f" and {len(waiting) - SHOWN_MAX} more" if len(waiting) > SHOWN_MAX else ""
        faults.append(f"manual journals wait for a decision: {named}{more}")
    faults += [
        f"the trial balance of {asset} is off by {total}"
        for asset, total in sorted(sums.items())
        if total
    ]
    if faults:
        raise PeriodNotClosable(
            f"the period up to {through} cannot be closed: {'; '.join(faults)}",
            remedy="Put that in order and approve again",
        )


def approvals_complete(approvers: Iterable[str]) -> bool:
    """Tell whether enough operators have signed a close or a reopening."""
    return len(set(approvers)) >= PERIOD_APPROVALS


def current_day(block_time: datetime, now: datetime) -> date:
    """Return the day (UTC) that it is in a book: time never goes back behind its last block."""
    return max(block_time, now).astimezone(UTC).date()


def require_reason(reason: str) -> None:
    """Refuse an empty or an endless reason."""
    if not 0 < len(reason.strip()) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")


def _close_faults(through: date, closed_through: date | None, today: date) -> Iterable[str]:
    if closed_through is not None and through <= closed_through:
        yield f"it is closed up to {closed_through} already"
    if through >= today:
        yield f"the day is not over in the book, where it is {today}"


def _require_young(what: str, proposed_at: datetime, now: datetime | None) -> None:
    if now is not None and now - proposed_at > LIFETIME:
        raise NotOpen(
            f"{what} is older than {LIFETIME.days} days", remedy="Reject it and propose it anew"
        )
