"""Taking in one thing that was done outside: in a transaction of its own, or it is for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.restore import store
from custody.restore.model import WHAT_LENGTH_MAX, Item, ItemState
from kernel.db import transact
from kernel.errors import CausewayError, OutcomeUnknown, OutsideUnavailable


async def take(
    engine: AsyncEngine,
    item: Item,
    write: Callable[[AsyncConnection], Awaitable[object]],
    *,
    payouts: Collection[UUID] = (),
) -> Item:
    """Write *item* as restored together with what *write* writes; what cannot be is for people.

    Args:
        engine: the database.
        item: says what was done.
        write: takes it in.
        payouts: those that it pays, where they are several.

    Raises:
        OutsideUnavailable: PostgreSQL does not answer: nothing is taken in, and nothing is left to people.
        OutcomeUnknown: its answer was lost. Take it in again: what is taken in stays as it is.
    """

    async def taken(conn: AsyncConnection) -> Item:
        await store.save_item(conn, item)
        await write(conn)
        return item

    try:
        return await transact(engine, taken)
    except (OutsideUnavailable, OutcomeUnknown):
        raise
    except CausewayError as error:
        why = error.what
    except IntegrityError as error:
        why = f"the database refuses: {error.orig}"
    what = f"{item.what}: {why}"[:WHAT_LENGTH_MAX]
    left = replace(item, state=ItemState.UNRESOLVED, what=what)

    async def noted(conn: AsyncConnection) -> Item:
        await store.save_item(conn, left)
        await note_sent_together(conn, left, payouts)
        return left

    return await transact(engine, noted)


async def note_sent_together(conn: AsyncConnection, left: Item, payouts: Collection[UUID]) -> None:
    """Note beside *left*, which could not be taken in, the payouts that it pays.

    None of them is sent again, whatever people do about the others (`custody.payout_gates`), and those
    that are not here are not asked for again (`custody.lost_payouts`).
    """
    for payout_id in sorted(payouts):
        note = replace(
            left,
            key=f"{left.key}/{payout_id}",
            state=ItemState.NOTED,
            what=f"payout {payout_id} is in it, and is not sent again",
            payout_id=payout_id,
        )
        await store.save_item(conn, note)
