"""The life of a payout as one time line: events, postings, approvals, attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.payout_events import ATTEMPT, PAYOUT
from custody.payout_model import Approval, Attempt, Payout
from kernel.events import DomainEvent, list_history
from ledger.model import JournalTransfer
from ledger.queries import list_transfers

EVENT: Final = "event"
POSTING: Final = "posting"
APPROVAL: Final = "approval"


@dataclass(frozen=True, slots=True)
class Moment:
    """One line: when, what kind of thing, who, and what in words."""

    at: datetime
    kind: str
    actor: str
    what: str


@dataclass(frozen=True, slots=True)
class PayoutStory:
    """A payout with everything that belongs to it."""

    payout: Payout
    attempts: tuple[Attempt, ...]
    approvals: tuple[Approval, ...]
    postings: tuple[JournalTransfer, ...]
    timeline: tuple[Moment, ...]


async def explain(conn: AsyncConnection, payout_id: UUID) -> PayoutStory:
    """Return the payout's life, oldest moment first.

    Raises:
        UnknownRow: there is no such payout.
    """
    payout = await store.get_payout(conn, payout_id)
    attempts = await store.list_attempts(conn, payout_id)
    approvals = await store.list_approvals(conn, payout_id)
    postings = await list_transfers(conn, payout.book, correlation=payout_id)
    events = await list_history(conn, PAYOUT, payout_id)
    for attempt in attempts:
        events += await list_history(conn, ATTEMPT, attempt.id)
    moments = [_event(event) for event in events]
    moments += [
        Moment(
            item.at, APPROVAL, item.operator, f"signed an approval of {len(item.lines)} payout(s)"
        )
        for item in approvals
    ]
    moments += [_posting(item) for item in postings]
    return PayoutStory(
        payout=payout,
        attempts=tuple(attempts),
        approvals=tuple(approvals),
        postings=tuple(postings),
        timeline=tuple(sorted(moments, key=lambda moment: moment.at)),
    )


def _event(event: DomainEvent) -> Moment:
    edge = f"{event.from_state} -> {event.to_state}" if event.from_state else str(event.to_state)
    reason = f": {event.reason}" if event.reason else ""
    return Moment(event.at, EVENT, event.actor, f"{event.name} ({edge}){reason}")


def _posting(item: JournalTransfer) -> Moment:
    kind = item.kind.name.lower()
    what = f"{kind} Dr {item.debit} / Cr {item.credit} {item.amount} {item.asset} [{item.code}]"
    return Moment(item.recorded_at, POSTING, "ledger", what)
