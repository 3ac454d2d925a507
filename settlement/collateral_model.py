"""Collateral: what moves between us and a party as security, and what that does to the books. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.errors import BadInput, Refused
from kernel.ids import stable_id
from ledger.opaque import require_token
from settlement.model import IMPORTED_LEG, Direction, Obligation

PRODUCT: Final = "collateral"


class Move(StrEnum):
    """Which way security moves."""

    GIVE = "give"
    """We give it."""
    GIVE_BACK = "give-back"
    """What we gave is given back to us."""
    TAKE = "take"
    """The party gives it."""
    TAKE_BACK = "take-back"
    """What we took goes back to the party."""


class Way(StrEnum):
    """How it moves."""

    ACCOUNT = "account"
    """In our own books: to or from what the party holds here."""
    SETTLEMENT = "settlement"
    """As an obligation, settled as any other: by its rail, approved and paid once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralMove:
    """One movement of security.

    Attributes:
        reference: your own; one movement for each.
        amount: in smallest units, above zero.
        value_date: when it is due; of what moves in the books, today.
    """

    book: int
    reference: str
    move: Move
    way: Way
    party: str
    asset: str
    amount: int
    value_date: date

    def __post_init__(self) -> None:
        require_token(self.reference, "reference of a collateral movement")
        if not self.reference:
            raise BadInput("a movement of collateral has no reference")
        if self.amount <= 0:
            raise BadInput(f"collateral of {self.amount} units cannot move")
        if self.way is Way.ACCOUNT and self.move in {Move.GIVE, Move.GIVE_BACK}:
            raise Refused(
                "what we give as security leaves the house, or comes back to it",
                remedy="Let it settle: --way settlement",
            )

    @property
    def id(self) -> UUID:
        """Return what names it for ever."""
        return stable_id("collateral", self.book, self.reference)

    @property
    def held_at(self) -> str:
        """Return the account of the security itself."""
        kind = "given" if self.move in {Move.GIVE, Move.GIVE_BACK} else "taken"
        return f"collateral:{kind}:{self.party}"

    @property
    def lowers(self) -> bool:
        """Tell whether less is held as security afterwards."""
        return self.move in {Move.GIVE_BACK, Move.TAKE_BACK}

    @property
    def direction(self) -> Direction:
        """Return who moves it."""
        return Direction.PAY if self.move in {Move.GIVE, Move.TAKE_BACK} else Direction.RECEIVE

    @property
    def accounts(self) -> tuple[str, str]:
        """Return the account that is debited, and the one that is credited."""
        if self.way is Way.ACCOUNT:
            other = f"client:{self.party}"
        elif self.direction is Direction.PAY:
            other = f"payable:{self.party}:open"
        else:
            other = f"receivable:{self.party}:open"
        if self.direction is Direction.PAY:
            return self.held_at, other
        return other, self.held_at

    def obligation(self, now: datetime) -> Obligation | None:
        """Return what settles it, if it settles."""
        if self.way is Way.ACCOUNT:
            return None
        return Obligation(
            id=stable_id("collateral-obligation", self.book, self.reference),
            # Nothing else ever has this id: it stands where a deal's would.
            deal_id=self.id,
            leg=IMPORTED_LEG,
            party=self.party,
            asset=self.asset,
            amount=self.amount,
            direction=self.direction,
            value_date=self.value_date,
            created_at=now,
            product=PRODUCT,
        )
