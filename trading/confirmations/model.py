"""Values of confirmations: documents, what was said to them, and the keys it is said with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from kernel.errors import BadInput
from kernel.states import StateTable
from ledger.opaque import require_token

Draw: TypeAlias = Callable[[str], bytes]
"""Draws the PDF of a confirmation's text: the same text, the same bytes (`pdf.draw`)."""

PUBLIC_KEY_BYTES: Final = 32
SHA256_DIGITS: Final = 64


class ConfirmationKind(StrEnum):
    """What a version says of the trade; SWIFT MT300 field 22A calls them NEWT, AMND and CANC."""

    NEW = "new"
    AMENDMENT = "amendment"
    CANCELLATION = "cancellation"


class ConfirmationState(StrEnum):
    """What the other side has said to a version."""

    ISSUED = "issued"
    AFFIRMED = "affirmed"
    DISPUTED = "disputed"
    SUPERSEDED = "superseded"
    """A newer version of the trade stands in its place."""


CONFIRMATION_STATES: Final = StateTable(
    schema="trading",
    table="confirmation",
    initial=frozenset({ConfirmationState.ISSUED}),
    edges=frozenset(
        {
            (ConfirmationState.ISSUED, ConfirmationState.AFFIRMED),
            (ConfirmationState.ISSUED, ConfirmationState.DISPUTED),
            (ConfirmationState.DISPUTED, ConfirmationState.AFFIRMED),
            (ConfirmationState.ISSUED, ConfirmationState.SUPERSEDED),
            (ConfirmationState.AFFIRMED, ConfirmationState.SUPERSEDED),
            (ConfirmationState.DISPUTED, ConfirmationState.SUPERSEDED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """One version of what both sides agreed in a trade.

    Attributes:
        deal_id: the deal whose terms it states.
        trade_id: the first deal of the trade: the same for all its versions.
        version: counts the versions of the trade from 1.
        supersedes: the version before this one.
        text: the document; `text_sha256` is of its UTF-8, in lower-case hexadecimal.
        pdf_sha256: of the PDF; None: it was not drawn yet.
    """

    id: UUID
    book: int
    deal_id: UUID
    trade_id: UUID
    version: int
    kind: ConfirmationKind
    party: str
    state: ConfirmationState
    supersedes: UUID | None
    text: str
    text_sha256: str
    pdf_sha256: str | None
    value_date: date
    issued_by: str
    issued_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A version that has still to be written: of which deal, and since when."""

    deal_id: UUID
    is_cancellation: bool
    since: datetime


class Verdict(StrEnum):
    """What somebody said to a confirmation."""

    AFFIRMED = "affirmed"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affirmation:
    """What the other side said to a confirmation, and how we know.

    Attributes:
        key_version: which of the party's keys signed; None: an operator entered it.
        signature: that key's, over `affirmation_bytes`.
        evidence: SHA-256 of the mail or the recording that an operator entered it from.
        entered_by, approved_by: operators; the second one where no key of the party signed.
        approval: the second operator's signature, over `evidence_bytes`.
    """

    id: UUID
    confirmation_id: UUID
    verdict: Verdict
    key_version: int | None
    signature: bytes | None
    evidence: str | None
    entered_by: str
    approved_by: str | None
    approval: bytes | None
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationKey:
    """A public key with which a party affirms; two of our people enrolled it.

    Attributes:
        version: counts the party's keys from 1.
        label: what the party calls it: ``back-office``.
        public_key: Ed25519, 32 raw bytes (RFC 8032).
    """

    party: str
    version: int
    label: str
    public_key: bytes
    enrolled_by: str
    approved_by: str
    enrolled_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def __post_init__(self) -> None:
        require_token(self.label, "label of a key")
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise BadInput(
                f"the key {self.label} has {len(self.public_key)} bytes",
                remedy=f"An Ed25519 public key has {PUBLIC_KEY_BYTES}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unaffirmed:
    """A newest version that the other side has not affirmed, and how long that has been so.

    Attributes:
        age_s: whole seconds since it was issued.
        is_late: the value date is today or past.
    """

    confirmation: Confirmation
    client_ref: str
    age_s: int
    is_late: bool
