"""What the rest of custody asks of compliance: may this go on?"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.compliance import store
from custody.compliance.model import (
    PASSED,
    Case,
    CaseState,
    LegalHold,
    Subject,
)
from custody.errors import NotPossible
from custody.payout_model import ClaimKind, Payout
from kernel.events import DomainEvent, list_history

get_case = store.get_case
list_cases = store.list_cases
list_opinions = store.list_opinions
list_decisions = store.list_decisions
list_legal_holds = store.list_legal_holds
get_legal_hold = store.get_legal_hold


async def find_uncleared(conn: AsyncConnection, payouts: Sequence[Payout]) -> dict[UUID, str]:
    """Return, for each of these payouts that compliance does not let go, why not.

    Own transfers are nobody's business but ours. Everything else needs a case that was cleared or
    released, no legal hold on its client, and a destination that nothing speaks against.
    """
    to_others = [item for item in payouts if item.parsed_claim.kind is not ClaimKind.OWN]
    if not to_others:
        return {}
    passed = await store.find_passed(conn, Subject.PAYOUT, [item.id for item in to_others])
    others = [item.id for item in to_others if item.id not in passed]
    cases = await store.find_cases(conn, Subject.PAYOUT, others)
    parties = {item.parsed_claim.name for item in to_others}
    held = await store.find_standing_holds(conn, parties)
    spoken = await store.find_held_destinations(
        conn, {(item.chain, item.destination) for item in to_others}
    )
    return {
        item.id: reason
        for item in to_others
        if (
            reason := _refusal(
                cases.get(item.id),
                held.get(item.parsed_claim.name),
                spoken.get((item.chain, item.destination)),
                passed=item.id in passed,
            )
        )
    }


async def require_cleared(conn: AsyncConnection, payout: Payout) -> None:
    """Refuse unless compliance lets this payout go.

    Raises:
        NotPossible: says what it waits for.
    """
    reason = (await find_uncleared(conn, [payout])).get(payout.id)
    if reason is not None:
        raise NotPossible(
            f"payout {payout.id} waits for compliance: {reason}",
            remedy="Look at `causeway custody compliance queue`",
        )


async def find_legal_hold(conn: AsyncConnection, party: str) -> LegalHold | None:
    """Return a legal hold on the client that stands."""
    return (await store.find_standing_holds(conn, [party])).get(party)


async def list_history_of(conn: AsyncConnection, case: Case) -> list[DomainEvent]:
    """Return the life of a case, oldest event first."""
    return await list_history(conn, "compliance_case", case.id)


def _refusal(
    case: Case | None, hold: LegalHold | None, destination: Case | None, *, passed: bool
) -> str:
    if hold is not None:
        return f"legal hold {hold.order} on {hold.party}"
    if destination is not None:
        return f"something speaks against the destination: {destination.reason}"
    if passed or (case is not None and case.state in PASSED):
        return ""
    if case is None:
        return "nobody has screened it yet"
    if case.state is CaseState.OPEN:
        return case.reason or "whoever screens has not answered yet"
    return f"it is {case.state}: {case.reason}"
