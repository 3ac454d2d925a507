"""The life of a payout as one time line: events, postings, approvals, attempts, and what stops it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.bitcoin import spend_store
from custody.bitcoin.spend_moves import ATTEMPT as SPEND_ATTEMPT
from custody.bitcoin.spend_moves import SPEND, Carried, load_carried
from custody.errors import UnknownRow
from custody.freeze_model import Freeze, find_match
from custody.freezes import load_freezes
from custody.payout_events import ATTEMPT, PAYOUT
from custody.payout_model import Approval, Attempt, Payout
from custody.policy_model import Decision
from custody.policy_review import PastDecision, explain_past
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
    """A payout with everything that belongs to it.

    Attributes:
        decision: what the policy said when it was requested; None where it only fills a gap.
        worked_out: the same, worked out again rule by rule from the facts of that time.
        frozen: a freeze that stops it now.
    """

    payout: Payout
    attempts: tuple[Attempt, ...]
    approvals: tuple[Approval, ...]
    postings: tuple[JournalTransfer, ...]
    timeline: tuple[Moment, ...]
    decision: PastDecision | None
    worked_out: Decision | None
    frozen: Freeze | None
    spends: tuple[Carried, ...] = ()
    """On Bitcoin: the transactions that carry it, or carried it before, the newest last."""


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
    spends = await _spends(conn, payout_id)
    for spend in spends:
        events += await list_history(conn, SPEND, spend.spend.id)
        for one in spend.attempts:
            events += await list_history(conn, SPEND_ATTEMPT, one.id)
    moments = [_event(event) for event in events]
    moments += [
        Moment(
            item.at, APPROVAL, item.operator, f"signed an approval of {len(item.lines)} payout(s)"
        )
        for item in approvals
    ]
    moments += [_posting(item) for item in postings]
    decision, worked_out = await _decision(conn, payout_id)
    return PayoutStory(
        payout=payout,
        attempts=tuple(attempts),
        approvals=tuple(approvals),
        postings=tuple(postings),
        timeline=tuple(sorted(moments, key=lambda moment: moment.at)),
        decision=decision,
        worked_out=worked_out,
        frozen=find_match(
            await load_freezes(conn),
            chain=payout.chain,
            asset=payout.asset,
            wallet=payout.source_wallet,
            client=payout.party or "",
        ),
        spends=tuple(spends),
    )


async def _spends(conn: AsyncConnection, payout_id: UUID) -> list[Carried]:
    found = (await spend_store.find_spends_of(conn, [payout_id]))[payout_id]
    return [await load_carried(conn, item.spend_id) for item in found]


async def _decision(
    conn: AsyncConnection, payout_id: UUID
) -> tuple[PastDecision | None, Decision | None]:
    try:
        return await explain_past(conn, payout_id)
    except UnknownRow:
        return None, None


def _event(event: DomainEvent) -> Moment:
    edge = f"{event.from_state} -> {event.to_state}" if event.from_state else str(event.to_state)
    reason = f": {event.reason}" if event.reason else ""
    return Moment(event.at, EVENT, event.actor, f"{event.name} ({edge}){reason}")


def _posting(item: JournalTransfer) -> Moment:
    kind = item.kind.name.lower()
    what = f"{kind} Dr {item.debit} / Cr {item.credit} {item.amount} {item.asset} [{item.code}]"
    return Moment(item.recorded_at, POSTING, "ledger", what)
