"""Nouns of a move between books, and the edges of its machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

JOB: Final = "ledger.move-between-books"
"""Name of the job that drives a move; its payload is ``{"move": id}``."""

NOT_COVERED: Final = "client_money_not_covered"
"""The outcome of a step that would leave clients with less than they are owed."""

NOT_HELD: Final = "holding_not_sufficient"
"""The outcome of a first step whose holding has less than it would hand over."""


class MoveState(StrEnum):
    """Where a move is."""

    REQUESTED = "requested"
    HELD = "held"
    """The first book has it on hold."""
    ARRIVED = "arrived"
    """The second book has posted it."""
    SETTLED = "settled"
    """The first book has posted it too."""
    REFUSED = "refused"
    """The first book would not hold it: nothing has happened."""
    BOUNCED = "bounced"
    """The second book would not post it; the first one still holds."""
    RETURNED = "returned"
    """The first book has let it go."""


MOVE_STATES: Final = StateTable(
    schema="books",
    table="book_move",
    initial=frozenset({MoveState.REQUESTED}),
    edges=frozenset(
        {
            (MoveState.REQUESTED, MoveState.HELD),
            (MoveState.REQUESTED, MoveState.REFUSED),
            (MoveState.HELD, MoveState.ARRIVED),
            (MoveState.HELD, MoveState.BOUNCED),
            (MoveState.ARRIVED, MoveState.SETTLED),
            (MoveState.BOUNCED, MoveState.RETURNED),
        }
    ),
)

IN_FLIGHT: Final = frozenset(
    {MoveState.REQUESTED, MoveState.HELD, MoveState.ARRIVED, MoveState.BOUNCED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRequest:
    """What shall go from one book to another.

    Attributes:
        reference: an opaque name of the operator's own; one move for each in the first book.
        amount: smallest units of *asset*, above zero.
        claim_from, claim_to: the claim, debited in the first book and credited in the second one;
            both empty where only funds go.
        funds_from, funds_to: the holding, credited in the first book and debited in the second one;
            both empty where only the claim goes.
        reason: why, in words; it never enters a journal.
    """

    reference: str
    from_book: int
    to_book: int
    asset: str
    amount: int
    claim_from: str = ""
    claim_to: str = ""
    funds_from: str = ""
    funds_to: str = ""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move as it stands; *outcome* says why it was refused or bounced, empty otherwise."""

    id: UUID
    request: MoveRequest
    state: MoveState
    outcome: str
    requested_by: str
    approved_by: str
    created_at: datetime

    @property
    def in_flight(self) -> bool:
        """Tell whether a step is left to be done."""
        return self.state in IN_FLIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearingStanding:
    """What two books owe each other in one asset, at one instant; debits are positive.

    Attributes:
        left, right: the lower and the higher of the two books.
        left_posted: the balance of ``clearing:<right>`` in the left book.
        right_posted: the balance of ``clearing:<left>`` in the right book.
        pending: what is held on both accounts, debits less credits.
        moves: how many moves between them are under way.
        held: what those moves hold, debits less credits.
        one_sided: what they have posted in one book and not yet in the other, debits less credits.
    """

    left: int
    right: int
    asset: str
    left_posted: int
    right_posted: int
    pending: int
    moves: int
    held: int
    one_sided: int

    @property
    def difference(self) -> int:
        """Return what no move explains: 0, or the books do not agree with each other."""
        return self.left_posted + self.right_posted - self.one_sided

    @property
    def difference_pending(self) -> int:
        """Return what is held on clearing and belongs to no move: 0, or something else holds it."""
        return self.pending - self.held

    @property
    def agrees(self) -> bool:
        """Tell whether the moves explain everything."""
        return not (self.difference or self.difference_pending)
