"""Rows of moves between books to values and back; private to this room."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.coverage import IS_HELD, IS_OWED
from ledger.interbook.errors import NoSuchMove
from ledger.interbook.model import MOVE_STATES, ClearingStanding, Move, MoveRequest, MoveState
from ledger.interbook.postings import PURPOSE
from ledger.interbook.tables import book_move
from ledger.points import fill
from ledger.store import run

PAGE_MAX: Final = 500


async def insert_move(conn: AsyncConnection, item: Move, signature: bytes) -> bool:
    """Insert a move unless its reference is taken; tell whether this call inserted it."""
    request = item.request
    statement = (
        insert(book_move)
        .values(
            id=item.id,
            reference=request.reference,
            from_book=request.from_book,
            to_book=request.to_book,
            asset=request.asset,
            amount=request.amount,
            claim_from=request.claim_from,
            claim_to=request.claim_to,
            funds_from=request.funds_from,
            funds_to=request.funds_to,
            reason=request.reason,
            state=item.state,
            requested_by=item.requested_by,
            approved_by=item.approved_by,
            signature=signature,
            created_at=item.created_at,
        )
        .on_conflict_do_nothing(index_elements=["from_book", "reference"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def get_move(conn: AsyncConnection, move_id: UUID, *, lock: bool = False) -> Move:
    """Return a move.

    Raises:
        NoSuchMove: there is none.
    """
    query = select(book_move).where(book_move.c.id == move_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoSuchMove(f"there is no move {move_id} between books")
    return _move(row)


async def get_move_by_reference(conn: AsyncConnection, book: int, reference: str) -> Move:
    """Return the move of a reference that is known to be taken."""
    query = select(book_move).where(
        book_move.c.from_book == book, book_move.c.reference == reference
    )
    return _move((await conn.execute(query)).one())


async def list_moves(
    conn: AsyncConnection,
    *,
    book: int | None = None,
    states: Collection[MoveState] = tuple(MoveState),
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[Move]:
    """Return moves in the given states, oldest first; *book*: only those from or to it."""
    query = select(book_move).where(book_move.c.state.in_(sorted(states)))
    if book is not None:
        query = query.where(or_(book_move.c.from_book == book, book_move.c.to_book == book))
    if after is not None:
        # Ids are in the order of time, so that one is a cursor.
        query = query.where(book_move.c.id > after)
    query = query.order_by(book_move.c.id).limit(min(limit, PAGE_MAX))
    return [_move(row) for row in await conn.execute(query)]


async def step_move(
    conn: AsyncConnection, item: Move, state: MoveState, *, outcome: str | None = None
) -> Move:
    """Move a locked row along an edge and return it as it stands then."""
    MOVE_STATES.require(item.state, state)
    values = {} if outcome is None else {"outcome": outcome}
    statement = (
        update(book_move)
        .where(book_move.c.id == item.id)
        .values(state=state, **values)
        .returning(book_move)
    )
    return _move((await conn.execute(statement)).one())


async def read_cover(conn: AsyncConnection, book: int, asset: str) -> tuple[int, int]:
    """Return what is held for clients of a book in an asset and what is owed to them.

    Holdings less all that is reserved to leave, claims only less what leaves with other moves: what
    a client has asked for otherwise is owed until its coins are gone. The caller holds the lock of
    the head.
    """
    rows = await run(conn, _COVER, book, asset, PURPOSE)
    return int(rows[0].holdings), int(rows[0].owed)


_COVER: Final = fill(
    """
SELECT coalesce(sum(b.debits_posted - b.credits_posted - b.credits_pending)
                FILTER (WHERE <is_held>), 0)::text AS holdings,
       coalesce(sum(b.credits_posted - b.debits_posted - coalesce(moves.amount, 0))
                FILTER (WHERE <is_owed>), 0)::text AS owed
  FROM ledger.account a
  JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
  LEFT JOIN LATERAL (
      SELECT sum(h.amount) AS amount FROM ledger.hold h
       WHERE h.book = a.book AND h.debit = a.number AND h.state = 'open' AND h.purpose = $3
  ) moves ON b.debits_pending > 0 AND <is_owed>
 WHERE a.book = $1 AND a.asset = $2 AND (<is_owed> OR <is_held>)
""",
    is_owed=IS_OWED,
    is_held=IS_HELD,
)


async def find_owner(conn: AsyncConnection, book: int, path: str, asset: str) -> str | None:
    """Return the owner class of an account; None if it is not open."""
    rows = await run(
        conn,
        "SELECT owner FROM ledger.account WHERE book = $1 AND path = $2 AND asset = $3",
        book,
        path,
        asset,
    )
    return rows[0].owner if rows else None


async def read_standings(conn: AsyncConnection) -> list[ClearingStanding]:
    """Return the clearing accounts of all books and the moves under way, at one instant."""
    return [
        ClearingStanding(
            left=row.low,
            right=row.high,
            asset=row.asset,
            left_posted=int(row.left_posted),
            right_posted=int(row.right_posted),
            pending=int(row.pending),
            moves=row.moves,
            held=int(row.held),
            one_sided=int(row.one_sided),
        )
        for row in await run(conn, _STANDINGS)
    ]


# One statement, so that balances and moves are of one instant. Of a move the first book has credited
# its clearing account for a claim and debited it for funds, the second one the opposite; so what only
# the second one has posted is +1 for a claim, -1 for funds.
_STANDINGS: Final = """
WITH sides AS (
    SELECT a.book, substr(a.path, 10)::integer AS other, a.asset,
           b.debits_posted - b.credits_posted AS posted,
           b.debits_pending - b.credits_pending AS pending
      FROM ledger.account a
      JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
     WHERE a.path ~ '^clearing:[0-9]{1,5}$'
), flying AS (
    SELECT m.from_book, m.to_book, m.asset, m.state,
           m.amount * ((m.claim_from <> '')::integer - (m.funds_from <> '')::integer) AS net
      FROM books.book_move m WHERE m.state IN ('requested', 'held', 'arrived', 'bounced')
), parts AS (
    SELECT least(book, other) AS low, greatest(book, other) AS high, asset,
           CASE WHEN book < other THEN posted ELSE 0 END AS left_posted,
           CASE WHEN book < other THEN 0 ELSE posted END AS right_posted,
           pending, 0 AS moves, 0 AS held, 0 AS one_sided
      FROM sides
    UNION ALL
    SELECT least(from_book, to_book), greatest(from_book, to_book), asset, 0, 0, 0, 1,
           CASE WHEN state = 'requested' THEN 0 ELSE -net END,
           CASE WHEN state = 'arrived' THEN net ELSE 0 END
      FROM flying
)
SELECT low, high, asset, sum(left_posted)::text AS left_posted,
       sum(right_posted)::text AS right_posted, sum(pending)::text AS pending,
       sum(moves)::integer AS moves, sum(held)::text AS held, sum(one_sided)::text AS one_sided
  FROM parts GROUP BY low, high, asset ORDER BY low, high, asset
"""


def _move(row: Row[Any]) -> Move:
    return Move(
        id=row.id,
        request=MoveRequest(
            reference=row.reference,
            from_book=row.from_book,
            to_book=row.to_book,
            asset=row.asset,
            amount=row.amount,
            claim_from=row.claim_from,
            claim_to=row.claim_to,
            funds_from=row.funds_from,
            funds_to=row.funds_to,
            reason=row.reason,
        ),
        state=MoveState(row.state),
        outcome=row.outcome,
        requested_by=row.requested_by,
        approved_by=row.approved_by,
        created_at=row.created_at,
    )
