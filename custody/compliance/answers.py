"""What follows from an answer about a case. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from custody.compliance.model import (
    REASON_LENGTH_MAX,
    Answer,
    Case,
    CaseState,
    Opinion,
    Question,
    Verdict,
)
from kernel.errors import OutsideUnavailable
from kernel.events import DomainEvent

ENTITY: Final = "compliance_case"
ACTOR: Final = "system:compliance"
NO_RECORD: Final = "the travel-rule record is missing"
_BY_VERDICT: Final = {Verdict.CLEAR: CaseState.CLEARED, Verdict.HIT: CaseState.HELD}


def question_of(case: Case) -> Question:
    """Return what is asked about a case."""
    return Question(
        case_id=case.id,
        direction=case.direction,
        chain=case.chain,
        address=case.address,
        party=case.party,
        asset=case.asset,
        amount=case.amount,
    )


def require_answers(questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    """Refuse answers of which nobody can say what they are about.

    Raises:
        OutsideUnavailable: not one answer for each question; ask again.
    """
    if len(answers) != len(questions):
        raise OutsideUnavailable(
            f"{len(questions)} questions were screened and {len(answers)} answers came",
            remedy="Look at the screening provider; nothing was let through",
        )


def answered(
    case: Case, answer: Answer, *, provider: str, list_version: str, recorded: bool, now: datetime
) -> Case:
    """Return an open case after an answer.

    Args:
        recorded: whether the travel rule is satisfied; without that nothing is cleared.
    """
    state, reason = _BY_VERDICT.get(answer.verdict, CaseState.OPEN), answer.reason
    if state is CaseState.CLEARED and not recorded:
        state, reason = CaseState.OPEN, NO_RECORD
    return replace(
        case,
        state=state,
        reason=reason[:REASON_LENGTH_MAX],
        provider=provider,
        list_version=list_version,
        answered_at=now,
        version=case.version + (state is CaseState.HELD),
    )


def answered_again(
    case: Case, answer: Answer, *, provider: str, list_version: str, now: datetime
) -> Case:
    """Return a case that was let through or held, after another version's answer.

    A hit holds what was cleared. What people have released stays released, and what is held stays
    held until they decide: a list never overrules two people, nor lets anything go in their place.
    """
    if answer.verdict is Verdict.UNKNOWN:
        return case
    after = replace(case, provider=provider, list_version=list_version, answered_at=now)
    if answer.verdict is Verdict.HIT and case.state is CaseState.CLEARED:
        return replace(
            after,
            state=CaseState.HELD,
            reason=answer.reason[:REASON_LENGTH_MAX],
            version=case.version + 1,
        )
    return after


def opinion_of(case: Case, answer: Answer) -> Opinion:
    """Return an answer as it is kept."""
    assert case.answered_at is not None, "an answer has a time"
    return Opinion(
        case_id=case.id,
        provider=case.provider,
        list_version=case.list_version,
        verdict=answer.verdict,
        reason=answer.reason[:REASON_LENGTH_MAX],
        at=case.answered_at,
    )


def event(
    before: Case | None, after: Case, name: str, *, at: datetime, actor: str, reason: str = ""
) -> DomainEvent:
    """Return the event of a step of a case; no personal data."""
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=after.version,
        name=name,
        at=at,
        actor=actor,
        reason=reason,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={
            "subject": str(after.subject),
            "subject_id": str(after.subject_id),
            "epoch": after.epoch,
            "direction": str(after.direction),
            "party": after.party,
            "chain": after.chain,
            "address": after.address,
            "provider": after.provider,
            "list_version": after.list_version,
        },
    )
