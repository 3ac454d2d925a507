"""How many people say something, and that they signed exactly that. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from custody.compliance.model import REASON_LENGTH_MAX, Case, LegalHold
from custody.deposit_model import Deposit
from kernel.errors import BadInput
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import NotAuthorised
from registry.model import Operator, Role

HOLD_VERB: Final = "compliance.hold"
RELEASE_VERB: Final = "compliance.release"
REFUND_VERB: Final = "compliance.refund"
LEGAL_HOLD_VERB: Final = "legal-hold.place"
LIFT_VERB: Final = "legal-hold.lift"
ADOPT_VERB: Final = "deposit.adopt"
DISMISS_VERB: Final = "deposit.dismiss"

DECIDERS: Final = (Role.APPROVER, Role.TREASURER, Role.FINANCE)
HOLDERS: Final = (*DECIDERS, Role.OPERATIONS, Role.ADMIN)
"""Whoever may hold something back: it only makes things safer."""
BOTH: Final = 2


def case_bytes(verb: str, case: Case, reason: str, **more: str) -> bytes:
    """Return what is signed about a case: what it is about, in which epoch, and how it stands."""
    return signing_bytes(
        verb,
        {
            "case": case.id,
            "subject": str(case.subject),
            "subject_id": case.subject_id,
            "epoch": case.epoch,
            # What was signed about one hold says nothing about the next hold of the same case.
            "version": case.version,
            "asset": case.asset,
            "amount": str(case.amount),
            "chain": case.chain,
            "address": case.address,
            "party": case.party,
            "reason": reason,
            **more,
        },
    )


def refund_bytes(case: Case, reason: str, *, destination: str, wallet: str) -> bytes:
    """Return what both people sign who give a held deposit back: where to, and which wallet pays."""
    return case_bytes(REFUND_VERB, case, reason, destination=destination, wallet=wallet)


def legal_hold_bytes(verb: str, party: str, order: str, reason: str) -> bytes:
    """Return what is signed when a legal hold is placed."""
    return signing_bytes(verb, {"party": party, "order": order, "reason": reason})


def lift_bytes(hold: LegalHold, reason: str) -> bytes:
    """Return what is signed when this legal hold is lifted, and no other of the same order."""
    return signing_bytes(
        LIFT_VERB,
        {"hold": hold.id, "party": hold.party, "order": hold.order, "reason": reason},
    )


def deposit_bytes(verb: str, deposit: Deposit, reason: str) -> bytes:
    """Return what is signed when a quarantined deposit is adopted or dismissed."""
    return signing_bytes(
        verb,
        {
            "deposit": deposit.id,
            "epoch": deposit.epoch,
            "chain": deposit.chain,
            "contract": deposit.contract,
            "amount": str(deposit.amount),
            "address": deposit.address,
            "wallet": deposit.wallet,
            "reason": reason,
        },
    )


def require_people(
    payload: bytes,
    people: Sequence[tuple[Operator, bytes]],
    *,
    count: int,
    roles: Sequence[Role],
    reason: str,
) -> None:
    """Refuse unless so many different people with the right signed exactly *payload*.

    Raises:
        BadInput: no reason, or one that is too long.
        NotAuthorised: too few, one person twice, a missing role, or a signature that does not hold.
    """
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise BadInput(
            f"a reason has 1 to {REASON_LENGTH_MAX} characters", remedy="Say what was found"
        )
    for operator, signature in people:
        require_role(operator, *roles)
        verify_signature(operator, payload, signature)
    if len({o.code for o, _ in people}) < count or len({o.public_key for o, _ in people}) < count:
        raise NotAuthorised(
            f"{len(people)} of {count} people have said so",
            remedy=f"{count} different people sign this" if count > 1 else "Sign it",
        )
