"""What a policy says and would have said: one request explained, and a policy tried on past requests.

A dry run judges each stored request again on the facts that it was decided on: who asked, what for,
how old the destination was, and what was reserved in the windows that the policy of the time added up.
A window that only the new policy knows is added up from the payouts as they stood then. Each request
is judged by itself: what the new policy would have blocked still counts as reserved for the next one,
because it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store
from custody.control_tables import payout_decision
from custody.errors import UnknownRow
from custody.payout_control import get_policy, load_policies
from custody.payout_model import Quorum
from custody.payout_policy import decide, find_windows
from custody.payout_tables import payout
from custody.policy_documents import facts_from_document
from custody.policy_model import Action, ApprovalPolicy, Decision, RequestFacts

PAGE_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """What a policy said to a request when it was made; *number* orders all decisions."""

    payout_id: UUID
    number: int
    decided_at: datetime
    policy_version: int
    rule: int
    action: Action
    required: tuple[Quorum, ...]
    reason: str
    facts: RequestFacts


@dataclass(frozen=True, slots=True)
class Changed:
    """A request that the new policy would have answered otherwise."""

    before: PastDecision
    after: Decision
    claim: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A page of a dry run.

    Attributes:
        judged: requests judged on this page.
        changed: those with another answer: another action, or other people to ask.
        unfounded: requests whose stored answer does not follow from the policy and the facts that
            are stored with it: somebody has written to the database, or the program has changed.
        after: number of the last request, for the next page; None on the last one.
    """

    judged: int
    changed: tuple[Changed, ...]
    unfounded: tuple[UUID, ...]
    after: int | None


async def explain_request(
    conn: AsyncConnection, policy: ApprovalPolicy, facts: RequestFacts, *, book: int, now: datetime
) -> tuple[RequestFacts, Decision]:
    """Return what *policy* would say now; nothing is reserved, and no lane is held."""
    reserved = {
        window: await control_store.sum_reserved(conn, book, window, now=now)
        for window in find_windows(policy.document, facts)
    }
    asked = replace(facts, reserved=reserved)
    return asked, decide(policy, asked)


async def get_decision(conn: AsyncConnection, payout_id: UUID) -> PastDecision:
    """Return what the policy said to a payout when it was requested.

    Raises:
        UnknownRow: it was not requested (it only fills a gap between nonces), or does not exist.
    """
    statement = select(payout_decision).where(payout_decision.c.payout_id == payout_id)
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"no policy has decided about payout {payout_id}")
    return _to_decision(row)


async def explain_past(conn: AsyncConnection, payout_id: UUID) -> tuple[PastDecision, Decision]:
    """Return what was said to a payout, and the same decision worked out again, rule by rule."""
    past = await get_decision(conn, payout_id)
    return past, decide(await get_policy(conn, past.policy_version), past.facts)


async def dry_run(
    conn: AsyncConnection,
    policy: ApprovalPolicy,
    *,
    book: int,
    since: datetime,
    after: int = 0,
    limit: int = PAGE_MAX,
) -> DryRun:
    """Judge a page of past requests by *policy*, oldest first.

    Args:
        conn: any transaction; nothing is written.
        policy: for instance what `custody.payout_control.draft_policy` returns.
        book: the book.
        since: requests from this time on.
        after: number of the last request of the page before.
        limit: requests on a page, at most `PAGE_MAX`.
    """
    size = min(limit, PAGE_MAX)
    rows = (
        await conn.execute(
            select(payout_decision, payout.c.claim, payout.c.client_ref)
            .join(payout, payout.c.id == payout_decision.c.payout_id)
            .where(
                payout_decision.c.book == book,
                payout_decision.c.decided_at >= since,
                payout_decision.c.number > after,
            )
            .order_by(payout_decision.c.number)
            .limit(size)
        )
    ).all()
    policies = await load_policies(conn, {row.policy_version for row in rows})
    changed, unfounded = [], []
    for row in rows:
        past = _to_decision(row)
        if not _follows(policies, past):
            unfounded.append(past.payout_id)
        said = decide(policy, await _facts_for(conn, policy, past, book))
        if (said.action, said.required) != (past.action, past.required):
            changed.append(Changed(past, said, row.claim, row.client_ref))
    return DryRun(
        judged=len(rows),
        changed=tuple(changed),
        unfounded=tuple(unfounded),
        after=rows[-1].number if len(rows) == size else None,
    )


def _follows(policies: Mapping[int, ApprovalPolicy], past: PastDecision) -> bool:
    said = decide(policies[past.policy_version], past.facts)
    return (said.rule, said.action, said.required) == (past.rule, past.action, past.required)


async def _facts_for(
    conn: AsyncConnection, policy: ApprovalPolicy, past: PastDecision, book: int
) -> RequestFacts:
    """Return the facts of a request with every window that *policy* adds up."""
    reserved = dict(past.facts.reserved)
    for window in find_windows(policy.document, past.facts) - reserved.keys():
        reserved[window] = await control_store.sum_reserved_before(
            conn, book, window, payout_id=past.payout_id, at=past.decided_at
        )
    return replace(past.facts, reserved=reserved)


def _to_decision(row: Row[Any]) -> PastDecision:
    return PastDecision(
        payout_id=row.payout_id,
        number=row.number,
        decided_at=row.decided_at,
        policy_version=row.policy_version,
        rule=row.rule,
        action=Action(row.action),
        required=tuple(Quorum(**item) for item in row.required),
        reason=row.reason,
        facts=facts_from_document(row.facts),
    )
