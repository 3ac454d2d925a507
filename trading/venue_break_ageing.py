"""What becomes of breaks after a run: they stay, change, come back or close. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from kernel.ids import derive_id
from trading.venue_reconciliation_model import Aged, BreakState, Finding, VenueBreak


def age(
    standing: Sequence[VenueBreak],
    findings: Sequence[Finding],
    *,
    compared: Collection[str],
    run_id: UUID,
    book: int,
    venue: str,
    account: str,
    now: datetime,
) -> Aged:
    """Return what becomes of *standing* breaks in the light of what a run found.

    A break keeps its id while it stands, whatever its figures do. An explanation or a dismissal holds
    for the figures that it was given for: when they change, the break is open again. What the run did
    not compare is left as it is.

    Args:
        standing: every break of the account that is not closed.
        findings: what the run found, each thing once.
        compared: the kinds of findings that the run could have made.
    """
    known = {(item.kind, item.subject): item for item in standing}
    found = {(item.kind, item.subject): item for item in findings}
    new, again, reopened = [], [], []
    for key, finding in found.items():
        before = known.get(key)
        if before is None:
            new.append(_new(finding, run_id, book, venue, account, now))
            continue
        after = replace(
            before, ours=finding.ours, theirs=finding.theirs, seen_at=now, seen_run=run_id
        )
        moved = (before.ours, before.theirs) != (after.ours, after.theirs)
        if moved and before.state is not BreakState.OPEN:
            reopened.append(_opened(after))
        else:
            again.append(after)
    gone = [item for key, item in known.items() if key not in found]
    return Aged(
        new=tuple(new),
        seen_again=tuple(again),
        reopened=tuple(reopened),
        closed=tuple(
            replace(item, state=BreakState.CLOSED, closed_at=now, closed_run=run_id)
            for item in gone
            if item.kind in compared
        ),
        untouched=tuple(item for item in gone if item.kind not in compared),
    )


def _new(
    finding: Finding, run_id: UUID, book: int, venue: str, account: str, now: datetime
) -> VenueBreak:
    return VenueBreak(
        id=derive_id(now, "venue-break", book, venue, account, finding.kind, finding.subject),
        book=book,
        venue=venue,
        account=account,
        kind=finding.kind,
        subject=finding.subject,
        ours=finding.ours,
        theirs=finding.theirs,
        state=BreakState.OPEN,
        opened_at=now,
        opened_run=run_id,
        seen_at=now,
        seen_run=run_id,
    )


def _opened(item: VenueBreak) -> VenueBreak:
    return replace(
        item,
        state=BreakState.OPEN,
        explanation="",
        explained_by=None,
        proposed_by=None,
        dismissed_by=None,
    )
