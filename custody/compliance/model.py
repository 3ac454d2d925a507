"""The nouns of compliance, and the machine of a case."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

SCHEMA: Final = "custody"
REASON_LENGTH_MAX: Final = 500
ASKED_AT_ONCE_MAX: Final = 500
"""Questions that are put to whoever screens in one go, at most."""


class Direction(StrEnum):
    """Which way the coins go."""

    IN = "in"
    OUT = "out"


class Verdict(StrEnum):
    """What whoever screens says of an address."""

    CLEAR = "clear"
    HIT = "hit"
    UNKNOWN = "unknown"
    """No answer: the case waits and is asked about again. Never taken for `CLEAR`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about: one foreign address, and what goes from or to it.

    Attributes:
        case_id: of the case, so that a remote provider can recognise the question again.
        address: the foreign one, as the chain spells it.
        party: whose coins; None where nobody is named.
        amount: smallest units of *asset*; 0 where the address itself is asked about.
    """

    case_id: UUID
    direction: Direction
    chain: str
    address: str
    party: str | None
    asset: str = ""
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What whoever screens answers; *reason* is for whoever decides, and holds no personal data."""

    verdict: Verdict
    reason: str = ""


class Subject(StrEnum):
    """What a case is about."""

    DEPOSIT = "deposit"
    PAYOUT = "payout"
    DESTINATION = "destination"
    """An allowed destination that a newer list speaks against."""


class CaseState(StrEnum):
    """Where a case is."""

    OPEN = "open"
    """Asked, and not answered yet."""
    CLEARED = "cleared"
    HELD = "held"
    """Something speaks against it: two people decide."""
    RELEASED = "released"
    REFUNDED = "refunded"
    """Two people give it back; the deposit says how far that is."""


CASE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="compliance_case",
    initial=frozenset({CaseState.OPEN, CaseState.HELD}),
    edges=frozenset(
        {
            (CaseState.OPEN, CaseState.CLEARED),
            (CaseState.OPEN, CaseState.HELD),
            # A newer list, or a person, speaks against what was let through.
            (CaseState.CLEARED, CaseState.HELD),
            (CaseState.RELEASED, CaseState.HELD),
            (CaseState.HELD, CaseState.RELEASED),
            (CaseState.HELD, CaseState.REFUNDED),
            # The payout that gives it back came to nothing.
            (CaseState.REFUNDED, CaseState.HELD),
        }
    ),
)

PASSED: Final = frozenset({CaseState.CLEARED, CaseState.RELEASED})
"""Cases that stop nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that compliance has looked at, or has to.

    ``(subject, subject_id, epoch)`` is its identity: a deposit that is mined again is looked at again.

    Attributes:
        address: the foreign address.
        provider, list_version: who answered last, and by which version of what it goes by.
        reason: what speaks against it, or why it was let go.
        version: number of events so far.
    """

    id: UUID
    subject: Subject
    subject_id: UUID
    epoch: int
    direction: Direction
    chain: str
    address: str
    party: str | None
    asset: str
    amount: int
    state: CaseState
    provider: str
    list_version: str
    reason: str
    opened_at: datetime
    answered_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer about a case, kept for ever."""

    case_id: UUID
    provider: str
    list_version: str
    verdict: Verdict
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What people said about a case or a legal hold, and signed.

    Attributes:
        subject_id: of the case or the legal hold.
        operators, signatures: in the same order.
    """

    subject_id: UUID
    number: int
    verb: str
    reason: str
    operators: tuple[str, ...]
    signatures: tuple[bytes, ...]
    at: datetime


class LegalHoldState(StrEnum):
    """Whether an authority's order stands."""

    PLACED = "placed"
    LIFTED = "lifted"


LEGAL_HOLD_STATES: Final = StateTable(
    schema=SCHEMA,
    table="legal_hold",
    initial=frozenset({LegalHoldState.PLACED}),
    edges=frozenset({(LegalHoldState.PLACED, LegalHoldState.LIFTED)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHold:
    """Nothing of this client's leaves, and nothing held is let go, until two people lift it.

    Attributes:
        order: the authority's reference, opaque.
    """

    id: UUID
    party: str
    order: str
    reason: str
    state: LegalHoldState
    placed_by: str
    placed_at: datetime
    lifted_at: datetime | None
    version: int


class ProofState(StrEnum):
    """How it stands with a client's proof that an address is its own."""

    ASKED = "asked"
    PROVEN = "proven"


PROOF_STATES: Final = StateTable(
    schema=SCHEMA,
    table="address_proof",
    initial=frozenset({ProofState.ASKED}),
    edges=frozenset({(ProofState.ASKED, ProofState.PROVEN)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressProof:
    """A message that only the holder of an address's key can sign, and the signature."""

    id: UUID
    party: str
    chain: str
    address: str
    message: str
    state: ProofState
    asked_at: datetime
    expires_at: datetime
    signature: bytes | None
    proven_at: datetime | None
    version: int
