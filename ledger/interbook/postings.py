"""The postings of a move between books, and what an approver signs about it. Pure.

In the first book (*A*) the legs are holds, in the second one (*B*) plain transfers::

    claim   A: Dr claim_from  / Cr clearing:B      B: Dr clearing:A / Cr claim_to
    funds   A: Dr clearing:B  / Cr funds_from      B: Dr funds_to   / Cr clearing:A
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from ledger.chart import account_spec
from ledger.interbook.errors import MoveNotPossible
from ledger.interbook.model import Move, MoveRequest
from ledger.model import Transfer, chain, hold, post_hold, transfer, void_hold
from ledger.opaque import require_token
from registry.authority import signing_bytes

APPROVE_MOVE: Final = "ledger.move-between-books.approve"
PURPOSE: Final = "between-books"
FUNDS: Final = ("bank:", "venue:")
"""Holdings that may be handed over in the books; coins in custody move on their chain, as payouts."""

NO_CLAIMS: Final = ("custody:", "bank:", "venue:", "transit:", "clearing:", "in-flight:")
REASON_LENGTH_MAX: Final = 500


def move_bytes(move_id: UUID, request: MoveRequest, requested_by: str) -> bytes:
    """Return what an approver signs about a move: all of it."""
    return signing_bytes(
        APPROVE_MOVE,
        {
            "move": move_id,
            "reference": request.reference,
            "from_book": request.from_book,
            "to_book": request.to_book,
            "asset": request.asset,
            "amount": str(request.amount),
            "claim": [request.claim_from, request.claim_to],
            "funds": [request.funds_from, request.funds_to],
            "reason": request.reason,
            "requested_by": requested_by,
        },
    )


def check_request(request: MoveRequest) -> None:
    """Refuse a move that no book could take.

    Raises:
        BadInput: an amount, a reference or a reason that cannot be.
        MoveNotPossible: the accounts do not fit each other or the move.
        NotInChart: a path is not in the chart of accounts.
    """
    if not 0 < request.amount <= AMOUNT_MAX:
        raise BadInput(f"a move is of more than nothing, not of {request.amount}")
    if not 0 < len(request.reason.strip()) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    require_token(request.reference, "reference")
    if not request.reference:
        raise BadInput("a move between books needs a reference of your own")
    if request.from_book == request.to_book:
        raise MoveNotPossible("the two books are one", remedy="Post a transfer within it")
    claim, funds = (
        bool(request.claim_from or request.claim_to),
        bool(request.funds_from or request.funds_to),
    )
    if not (claim or funds):
        raise MoveNotPossible("nothing is moved", remedy="Name a claim, funds, or both")
    if claim:
        _check_claim(request)
    if funds:
        _check_funds(request)


def held(move: Move) -> tuple[Transfer, ...]:
    """Return the holds of the first book, linked."""
    return chain(
        *(
            hold(
                _id(move, "hold", name),
                debit,
                credit,
                move.request.amount,
                move.request.asset,
                code=f"between-books.{name}.held",
                purpose=PURPOSE,
                correlation=move.id,
            )
            for name, debit, credit in _legs_of_first(move.request)
        )
    )


def arrived(move: Move) -> tuple[Transfer, ...]:
    """Return the transfers of the second book, linked."""
    return chain(
        *(
            transfer(
                _id(move, "arrival", name),
                debit,
                credit,
                move.request.amount,
                move.request.asset,
                code=f"between-books.{name}.arrived",
                correlation=move.id,
            )
            for name, debit, credit in _legs_of_second(move.request)
        )
    )


def settled(move: Move) -> tuple[Transfer, ...]:
    """Return what posts the holds of the first book, linked."""
    return chain(
        *(
            post_hold(
                _id(move, "settlement", name),
                _id(move, "hold", name),
                code=f"between-books.{name}.settled",
                correlation=move.id,
            )
            for name, _, _ in _legs_of_first(move.request)
        )
    )


def returned(move: Move) -> tuple[Transfer, ...]:
    """Return what voids the holds of the first book, linked."""
    return chain(
        *(
            void_hold(
                _id(move, "return", name),
                _id(move, "hold", name),
                code=f"between-books.{name}.returned",
                correlation=move.id,
            )
            for name, _, _ in _legs_of_first(move.request)
        )
    )


def _id(move: Move, step: str, name: str) -> UUID:
    return derive_id(move.created_at, "book-move", move.id, step, name)


def _legs_of_first(request: MoveRequest) -> list[tuple[str, str, str]]:
    clearing = f"clearing:{request.to_book}"
    legs = []
    # The funds first: they debit clearing for what the claim then credits it for.
    if request.funds_from:
        legs.append(("funds", clearing, request.funds_from))
    if request.claim_from:
        legs.append(("claim", request.claim_from, clearing))
    return legs


def _legs_of_second(request: MoveRequest) -> list[tuple[str, str, str]]:
    clearing = f"clearing:{request.from_book}"
    legs = []
    if request.funds_to:
        legs.append(("funds", request.funds_to, clearing))
    if request.claim_to:
        legs.append(("claim", clearing, request.claim_to))
    return legs


def _check_claim(request: MoveRequest) -> None:
    for path in (request.claim_from, request.claim_to):
        if not path:
            raise MoveNotPossible("a claim is named in both books, or in neither")
        account_spec(path, request.asset)
        if path.startswith(NO_CLAIMS):
            raise MoveNotPossible(f"{path} is no claim", remedy="Move a holding as funds")


def _check_funds(request: MoveRequest) -> None:
    for path in (request.funds_from, request.funds_to):
        if not path:
            raise MoveNotPossible("funds are named in both books, or in neither")
        account_spec(path, request.asset)
        if path.startswith("custody:"):
            raise MoveNotPossible(
                f"the coins of {path} move on their chain only",
                remedy="Pay them out to a wallet of the other entity",
            )
        if not path.startswith(FUNDS):
            raise MoveNotPossible(f"{path} is no holding", remedy=f"Use {' or '.join(FUNDS)}")
