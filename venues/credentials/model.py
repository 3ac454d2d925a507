"""What is kept of an API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from kernel.envelope import Envelope
from kernel.errors import BadInput

CODE_LENGTH_MAX: Final = 64
KEYS_MAX: Final = 10_000
"""Keys that one KEK seals, at most."""


@unique
class KeyPurpose(StrEnum):
    """What an API key is for."""

    TRADING = "trading"
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class Slot:
    """What a key is the key of."""

    venue: str
    account: str
    purpose: KeyPurpose

    def __post_init__(self) -> None:
        for what, code in (("venue", self.venue), ("account", self.account)):
            if not code or len(code) > CODE_LENGTH_MAX or any(c.isspace() for c in code):
                raise BadInput(f"{code!r} is no code of a {what}")

    def __str__(self) -> str:
        """Return how people speak of it."""
        return f"{self.venue}/{self.account} ({self.purpose})"

    def associated(self, version: int) -> bytes:
        """Return what the envelope of this slot's key of *version* is bound to."""
        return f"venue-key\n{self.venue}\n{self.account}\n{self.purpose}\n{version}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A key on record; nothing of it can be read without the KEK.

    Attributes:
        version: counts the keys of a slot from 1; the newest that is not retired is in force.
    """

    id: UUID
    slot: Slot
    version: int
    envelope: Envelope
    enrolled_by: str
    enrolled_at: datetime
    reason: str
    retired_at: datetime | None
    retired_by: str
