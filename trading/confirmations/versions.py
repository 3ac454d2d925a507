"""Which version of a trade a document is: read off the deals, never counted up. Pure.

A trade is a line of deals, each of which replaced the one before. Its versions are the line's deals in
order, and after the last one its cancellation, so whoever asks, and whenever, gets the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from kernel.ids import derive_id
from trading.confirmations.model import ConfirmationKind, Due
from trading.model import Deal, DealPurpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a trade, to be written.

    Attributes:
        line: the trade's deals up to the one that is confirmed, first one first.
        is_cancellation: of that deal; else the version says what it agreed.
    """

    line: tuple[Deal, ...]
    is_cancellation: bool

    @property
    def deal(self) -> Deal:
        """Return the deal whose terms the version states."""
        return self.line[-1]

    @property
    def trade_id(self) -> UUID:
        """Return the first deal's id."""
        return self.line[0].id

    @property
    def number(self) -> int:
        """Return the version's number, from 1."""
        return len(self.line) + int(self.is_cancellation)

    @property
    def kind(self) -> ConfirmationKind:
        """Return what the version says of the trade."""
        if self.is_cancellation:
            return ConfirmationKind.CANCELLATION
        return ConfirmationKind.NEW if len(self.line) == 1 else ConfirmationKind.AMENDMENT

    @property
    def id(self) -> UUID:
        """Return the id of its confirmation."""
        return derive_confirmation_id(self.deal, is_cancellation=self.is_cancellation)

    @property
    def supersedes(self) -> UUID | None:
        """Return the id of the confirmation before it."""
        if self.is_cancellation:
            return derive_confirmation_id(self.deal, is_cancellation=False)
        return derive_confirmation_id(self.line[-2], is_cancellation=False) if self.before else None

    @property
    def before(self) -> Deal | None:
        """Return the deal that an amendment replaced."""
        if self.is_cancellation or len(self.line) == 1:
            return None
        return self.line[-2]


def derive_confirmation_id(deal: Deal, *, is_cancellation: bool) -> UUID:
    """Return the id of the confirmation of a deal, or of its cancellation."""
    return derive_id(deal.created_at, "confirmation", deal.id, int(is_cancellation))


def is_confirmed(deal: Deal) -> bool:
    """Tell whether a deal has confirmations at all: a transfer has nobody outside to read them."""
    return deal.request.purpose is not DealPurpose.TRANSFER


def versions_of(due: Sequence[Due], lines: Mapping[UUID, tuple[Deal, ...]]) -> list[Version]:
    """Return what is due as versions, each after the one that it takes the place of."""
    found = [
        Version(line=lines[item.deal_id], is_cancellation=item.is_cancellation)
        for item in due
        if is_confirmed(lines[item.deal_id][-1])
    ]
    return sorted(found, key=lambda version: (version.trade_id, version.number))
