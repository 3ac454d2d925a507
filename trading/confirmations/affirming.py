"""What the other side says to a confirmation: its own signature, or two people who heard it.

The people are never the one who booked the deal, or who cancelled it: whoever made the trade, or
unmade it, does not confirm that for the client. A dispute takes one person, since it only makes somebody look.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import derive_id
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second, require_sha256
from trading.confirmations import store
from trading.confirmations.errors import NoConfirmationKey, NotAffirmable, OwnDeal
from trading.confirmations.model import (
    Affirmation,
    Confirmation,
    ConfirmationKey,
    ConfirmationKind,
    ConfirmationState,
    Verdict,
)
from trading.model import DealState
from trading.store import get_deal

BACK_OFFICE: Final = (Role.OPERATIONS, Role.FINANCE, Role.TREASURER)
SECOND: Final = (Role.APPROVER, Role.FINANCE, Role.TREASURER)


def affirmation_bytes(text_sha256: str) -> bytes:
    """Return what a party signs to affirm the text with this SHA-256.

    The text names the trade, its version and the confirmation, so its hash stands for all of them.
    """
    return signing_bytes("trading.affirm", {"text_sha256": text_sha256})


def evidence_bytes(text_sha256: str, evidence: str) -> bytes:
    """Return what the second operator signs: that this evidence affirms that text."""
    return signing_bytes(
        "trading.affirm_by_evidence", {"text_sha256": text_sha256, "evidence": evidence}
    )


async def affirm_by_signature(
    conn: AsyncConnection, confirmation_id: UUID, signature: bytes, *, by: str, now: datetime
) -> Confirmation:
    """Record that the party affirmed, by the signature of a key of its own that is in force.

    Args:
        conn: the caller's transaction.
        confirmation_id: of the trade's newest version.
        signature: Ed25519, 64 bytes, over `affirmation_bytes` of the text's SHA-256.
        by: who brought it: the signature is the proof, so anybody may.
        now: when.

    Raises:
        NoConfirmation: none has this id.
        NotAffirmable: another version took its place, or the deal was changed meanwhile.
        NoConfirmationKey: no key of the party made this signature.
    """
    item = await _lock(conn, confirmation_id)
    if item.state is ConfirmationState.AFFIRMED:
        return item
    await _require_current(conn, item)
    key = _signer(await store.list_keys(conn, item.party), item, signature)
    said = _affirmation(
        item, Verdict.AFFIRMED, by=by, now=now, key_version=key.version, signature=signature
    )
    await store.insert_affirmation(conn, said, item.party)
    reason = f"signed by key {key.version} of {key.party} ({key.label})"
    return await store.advance(
        conn, item, ConfirmationState.AFFIRMED, by=by, reason=reason, now=now
    )


async def affirm_by_evidence(
    conn: AsyncConnection,
    confirmation_id: UUID,
    *,
    evidence: str,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> Confirmation:
    """Record that the party affirmed in a mail, or by telephone: one person enters, another signs.

    Args:
        conn: the caller's transaction.
        confirmation_id: of the trade's newest version.
        evidence: SHA-256 of the mail or the recording, which is kept elsewhere.
        by: who enters it.
        approver: another person, who read or heard it as well.
        signature: the approver's, over `evidence_bytes`.
        reason: in words: who answered, and how.
        now: when.

    Raises:
        NoConfirmation, NotAffirmable: as in `affirm_by_signature`.
        OwnDeal: one of the two booked or cancelled the deal.
        SamePerson, NotAuthorised: the two are one, or may not, or the signature does not hold.
    """
    require_sha256(evidence, "evidence")
    item = await _lock(conn, confirmation_id)
    if item.state is ConfirmationState.AFFIRMED:
        return item
    dealers = await _require_current(conn, item)
    first = await require_operator(conn, by, *BACK_OFFICE)
    second = await require_second(
        *(conn, first, approver, *SECOND),
        payload=evidence_bytes(item.text_sha256, evidence),
        signature=signature,
    )
    for person in (first, second):
        if person.code in dealers:
            raise OwnDeal(
                f"{person.code} {dealers[person.code]} the deal and cannot affirm it for {item.party}",
                remedy="Ask somebody who did not make the trade",
            )
    said = _affirmation(
        item,
        Verdict.AFFIRMED,
        by=first.code,
        now=now,
        evidence=evidence,
        approved_by=second.code,
        approval=signature,
        reason=reason,
    )
    await store.insert_affirmation(conn, said, item.party)
    return await store.advance(
        conn, item, ConfirmationState.AFFIRMED, by=first.code, reason=reason, now=now
    )


async def dispute(
    conn: AsyncConnection,
    confirmation_id: UUID,
    *,
    reason: str,
    by: Operator,
    evidence: str | None = None,
    now: datetime,
) -> Confirmation:
    """Record that the party does not agree, and in what; the deal is not touched.

    A second dispute adds what it says to the record.

    Raises:
        NotAffirmable: the version is affirmed, or another one took its place.
        BadInput: no reason is given.
    """
    if not reason.strip():
        raise BadInput("a dispute says what is wrong", remedy="Give the term that differs")
    if evidence is not None:
        require_sha256(evidence, "evidence")
    who = await require_operator(conn, by, *Role)
    item = await _lock(conn, confirmation_id)
    if item.state is ConfirmationState.AFFIRMED:
        raise NotAffirmable(
            f"version {item.version} of trade {item.trade_id} is affirmed",
            remedy="Agree with the party on an amendment; its confirmation can be affirmed anew",
        )
    _require_newest(item)
    said = _affirmation(
        item, Verdict.DISPUTED, by=who.code, now=now, evidence=evidence, reason=reason
    )
    await store.insert_affirmation(conn, said, item.party)
    return await store.advance(
        conn, item, ConfirmationState.DISPUTED, by=who.code, reason=reason, now=now
    )


async def _lock(conn: AsyncConnection, confirmation_id: UUID) -> Confirmation:
    return await store.get_confirmation(conn, confirmation_id, lock=True)


async def _require_current(conn: AsyncConnection, item: Confirmation) -> dict[str, str]:
    """Refuse a version that is, or is about to be, superseded; return who did what to its deal."""
    _require_newest(item)
    found = await get_deal(conn, item.deal_id)
    stands = found.state not in {DealState.AMENDED, DealState.CANCELLED}
    if not stands and item.kind is not ConfirmationKind.CANCELLATION:
        raise NotAffirmable(
            f"deal {found.request.client_ref} is {found.state} meanwhile",
            remedy="Affirm the version that takes its place; it is about to be issued",
        )
    done = {found.request.booked_by: "booked"}
    if item.kind is ConfirmationKind.CANCELLATION:
        life = await list_history(conn, "deal", found.id)
        done |= {e.actor: "cancelled" for e in life if e.to_state == DealState.CANCELLED}
    return done


def _require_newest(item: Confirmation) -> None:
    if item.state is ConfirmationState.SUPERSEDED:
        raise NotAffirmable(
            f"version {item.version} of trade {item.trade_id} is superseded",
            remedy="Look for the newest: causeway desk confirmations",
        )


def _signer(
    keys: Sequence[ConfirmationKey], item: Confirmation, signature: bytes
) -> ConfirmationKey:
    """Return the party's key in force that made *signature*."""
    payload = affirmation_bytes(item.text_sha256)
    for key in keys:
        if key.revoked_at is None and _holds(key, payload, signature):
            return key
    raise NoConfirmationKey(
        f"no confirmation key of {item.party} in force made this signature",
        where=f"text {item.text_sha256}",
        remedy="Check that the newest version was signed, and that the key is enrolled",
    )


def _holds(key: ConfirmationKey, payload: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def _affirmation(
    item: Confirmation,
    verdict: Verdict,
    *,
    by: str,
    now: datetime,
    key_version: int | None = None,
    signature: bytes | None = None,
    evidence: str | None = None,
    approved_by: str | None = None,
    approval: bytes | None = None,
    reason: str = "",
) -> Affirmation:
    return Affirmation(
        id=derive_id(now, "affirmation", item.id, str(verdict), by, signature, evidence, reason),
        confirmation_id=item.id,
        verdict=verdict,
        key_version=key_version,
        signature=signature,
        evidence=evidence,
        entered_by=by,
        approved_by=approved_by,
        approval=approval,
        reason=reason,
        at=now,
    )
