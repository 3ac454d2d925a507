"""Travel-rule records: sealed before they are stored, opened only with the key."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from custody.compliance.model import Direction
from kernel.errors import BadInput, Refused

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class SealingKey:
    """The key that people's names are sealed with; it never comes near the database."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise BadInput(f"a sealing key has {KEY_BYTES} bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"

    @property
    def id(self) -> str:
        """Return the name by which records say what they are sealed with."""
        return hashlib.sha256(b"causeway travel-rule key" + self.secret).hexdigest()[:16]

    def digest(self, content: bytes) -> bytes:
        """Return a keyed hash (HMAC-SHA-256): without the key nobody can try out names."""
        return hmac.digest(self.secret, content, "sha256")

    def seal(self, record_id: UUID, content: bytes) -> bytes:
        """Return *content* sealed for this record.

        The nonce follows from record and content: the same record is never sealed with other content
        under one nonce, and no source of randomness is needed.
        """
        salted = b"nonce" + self.secret + record_id.bytes + content
        nonce = hashlib.sha256(salted).digest()[:NONCE_BYTES]
        return nonce + AESGCM(self.secret).encrypt(nonce, content, record_id.bytes)

    def open(self, record_id: UUID, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Refused: another key, another record, or the bytes were changed.
        """
        nonce, rest = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return AESGCM(self.secret).decrypt(nonce, rest, record_id.bytes)
        except InvalidTag as error:
            raise Refused(
                f"travel-rule record {record_id} cannot be opened with this key",
                remedy="Give the key that the record names",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TravelRuleRecord:
    """One record, sealed.

    Attributes:
        subject_id: of the deposit or payout.
        number: from 1; the newest stands.
        content_hash: keyed hash of what is sealed.
        missing: what it lacks; empty: complete.
    """

    id: UUID
    direction: Direction
    subject_id: UUID
    number: int
    sealed: bytes
    key_id: str
    content_hash: bytes
    missing: tuple[str, ...]
    recorded_by: str
    recorded_at: datetime

    def opened(self, key: SealingKey) -> dict[str, Any]:
        """Return what it says."""
        found: dict[str, Any] = json.loads(key.open(self.id, self.sealed))
        return found
