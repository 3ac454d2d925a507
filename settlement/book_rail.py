"""The book rail: a prefunded client settles both sides here, in one commit of the ledger.

`accept_book` holds what the client gives and what it gets, `settle_book` posts both in one chain:
that commit is the finality. `cancel_book` lets go of what is held and not settled.

Crediting a client by book makes the house owe it client money, so clients' holdings have to cover it
already (rule 6 of the account book): the house moves its coins into the client pool first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.freezes import require_open
from custody.model import client_account
from custody.payout_coverage import count_spare
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, chain, hold, post_hold, void_hold
from ledger.posting import post, require_applied
from ledger.queries import list_accounts
from registry.model import Operator
from registry.queries import get_asset
from settlement import instruction_store, release_store, store
from settlement.defaults import require_not_defaulted
from settlement.errors import NotCovered, NotReleasable
from settlement.holding import PURPOSE, acting
from settlement.model import Direction, Instruction, InstructionState, Run
from settlement.places import COVER
from settlement.release import lock_released
from settlement.release_model import Earmark
from settlement.release_steps import Step, step_instructions
from settlement.steps import Why
from settlement.value_against_value import Cover
from trading.terms.model import Rail

ACCEPTABLE = frozenset({InstructionState.PLANNED, InstructionState.RESCHEDULED})
HELD = frozenset({InstructionState.RELEASED})
DONE = frozenset({InstructionState.FINAL})


def book_holds(items: Sequence[Instruction], run: Run) -> list[Transfer]:
    """Return the holds of a book settlement: what the client gives and what it gets."""
    holds = []
    for item in items:
        client = client_account(item.party)
        gives = item.direction is Direction.RECEIVE
        holds.append(
            hold(
                id=_hold_id(item, run),
                debit=client if gives else f"payable:{item.party}:netted",
                credit=f"receivable:{item.party}:netted" if gives else client,
                asset=item.asset,
                amount=item.amount,
                code="settlement.book.held",
                purpose=PURPOSE,
                correlation=item.id,
            )
        )
    return holds


async def accept_book(
    conn: AsyncConnection, run_id: UUID, party: str, *, by: Operator | None, now: datetime
) -> list[Instruction]:
    """Hold both sides of a prefunded party's book settlement; nothing can spend them twice.

    What is held or settled already is returned as it stands.

    Raises:
        NotCovered: the client has not enough of what it gives.
    """
    run, items = await _lock_book(conn, run_id, party)
    operator = await acting(conn, by, [run])
    if _all_in(items, HELD | DONE):
        return items
    _require_all_in(items, ACCEPTABLE, "accepted")
    await require_not_defaulted(conn, run.book, party)
    await _require_open(conn, items)
    await _require_given(conn, run.book, items)
    holds = book_holds(items, run)
    why = Why(operator, "held in the ledger", now)
    steps = [
        Step(item, InstructionState.RELEASED, hold_id=held.id)
        for item, held in zip(items, holds, strict=True)
    ]
    await step_instructions(conn, steps, why)
    await release_store.insert_earmarks(
        conn, [_mark(item, run, now) for item in items if item.direction is Direction.PAY]
    )
    keys = {(p, t.asset) for t in holds for p in (t.debit, t.credit)}
    await ensure_accounts(conn, run.book, keys, now=now)
    require_applied(await post(conn, run.book, chain(*holds), now=now))
    return [replace(i, state=InstructionState.RELEASED) for i in items]


async def settle_book(
    conn: AsyncConnection, run_id: UUID, party: str, *, by: Operator | None, now: datetime
) -> list[Instruction]:
    """Post both sides in one chain: this commit is the finality of a book settlement.

    What is settled already is returned as it stands.

    Raises:
        NotCovered: clients' holdings would not cover what clients are owed; both sides stay held.
    """
    run, items = await _lock_book(conn, run_id, party)
    operator = await acting(conn, by, [run])
    if _all_in(items, DONE):
        return items
    _require_all_in(items, HELD, "settled")
    await require_not_defaulted(conn, run.book, party)
    await _require_open(conn, items)
    steps = [Step(item, InstructionState.FINAL, applied=item.amount) for item in items]
    await step_instructions(conn, steps, Why(operator, "ledger commit", now))
    await _end_marks(conn, items, Cover.PREFUNDED, "ledger commit", operator, now)
    posts = [
        post_hold(
            id=derive_id(run.created_at, "book-post", item.id, item.attempt),
            pending_id=_hold_id(item, run),
            code="settlement.book.settled",
            correlation=item.id,
        )
        for item in items
    ]
    require_applied(await post(conn, run.book, chain(*posts), now=now))
    # Only now nobody else can change a balance: the ledger's head is locked until this commits.
    await _require_covered(conn, run.book, items)
    return [replace(i, state=InstructionState.FINAL, applied=i.amount) for i in items]


async def cancel_book(
    conn: AsyncConnection, run_id: UUID, party: str, *, by: Operator, reason: str, now: datetime
) -> list[Instruction]:
    """Let go of both sides: the instructions have failed, and can be rescheduled.

    What has failed already is returned as it stands.
    """
    run, items = await _lock_book(conn, run_id, party)
    operator = await acting(conn, by, [run])
    if _all_in(items, frozenset({InstructionState.FAILED})):
        return items
    _require_all_in(items, HELD, "cancelled")
    steps = [Step(item, InstructionState.FAILED) for item in items]
    await step_instructions(conn, steps, Why(operator, reason, now))
    await _end_marks(conn, items, None, reason, operator, now)
    voids = [
        void_hold(
            id=derive_id(run.created_at, "book-void", item.id, item.attempt),
            pending_id=_hold_id(item, run),
            code="settlement.book.cancelled",
            correlation=item.id,
        )
        for item in items
    ]
    require_applied(await post(conn, run.book, chain(*voids), now=now))
    return [replace(i, state=InstructionState.FAILED) for i in items]


async def _require_open(conn: AsyncConnection, items: Sequence[Instruction]) -> None:
    for item in items:
        await require_open(conn, asset=item.asset, client=item.party)


def _mark(item: Instruction, run: Run, now: datetime) -> Earmark:
    """Return the record of what is set aside; the hold itself is the instruction's own."""
    return Earmark(
        instruction_id=item.id,
        attempt=item.attempt,
        book=run.book,
        plan_id=None,
        location=COVER,
        asset=item.asset,
        amount=item.amount,
        hold_id=None,
        held_at=now,
    )


async def _end_marks(
    conn: AsyncConnection,
    items: Sequence[Instruction],
    cover: Cover | None,
    detail: str,
    who: str,
    now: datetime,
) -> None:
    marks = await release_store.list_earmarks(conn, [item.id for item in items], open_only=True)
    ends = {(mark.instruction_id, mark.attempt): (cover, detail) for mark in marks}
    await release_store.end_earmarks(conn, ends, by=who, now=now)


def _hold_id(item: Instruction, run: Run) -> UUID:
    return derive_id(run.created_at, "book-hold", item.id, item.attempt)


async def _lock_book(
    conn: AsyncConnection, run_id: UUID, party: str
) -> tuple[Run, list[Instruction]]:
    run = await store.lock_run(conn, run_id)
    items = await instruction_store.list_instructions(
        conn, run_id=run.id, party=party, rail=Rail.BOOK, lock=True
    )
    if not items:
        raise BadInput(f"run {run.id} has nothing of {party} to settle by book")
    if not _all_in(items, DONE):
        await lock_released(conn, run_id)
    return run, items


def _all_in(items: Sequence[Instruction], states: frozenset[InstructionState]) -> bool:
    return all(item.state in states for item in items)


def _require_all_in(
    items: Sequence[Instruction], states: frozenset[InstructionState], verb: str
) -> None:
    """Refuse unless every side is where it should be: both sides, or none."""
    wrong = [item for item in items if item.state not in states]
    if wrong:
        names = ", ".join(sorted(f"{item.asset} is {item.state}" for item in wrong))
        raise NotReleasable(
            f"the book settlement of {wrong[0].party} cannot be {verb}: {names}",
            remedy=f"It takes {' or '.join(sorted(states))}, on every side",
        )


async def _require_given(conn: AsyncConnection, book: int, items: Sequence[Instruction]) -> None:
    """Say what the client lacks; the flag on its account is what refuses for certain."""
    for item in items:
        if item.direction is not Direction.RECEIVE:
            continue
        path = client_account(item.party)
        available = sum(
            account.balance.available
            for account in await list_accounts(conn, book, path)
            if account.path == path and account.asset == item.asset
        )
        if available < item.amount:
            asset = await get_asset(conn, item.asset)
            raise NotCovered(
                f"{item.party} is short of {asset.format(item.amount - available)}"
                f" for instruction {item.id}",
                remedy="Let it pay in more, or settle on chain",
            )


async def _require_covered(conn: AsyncConnection, book: int, items: Sequence[Instruction]) -> None:
    credited = {item.asset for item in items if item.direction is Direction.PAY}
    for code, spare in sorted((await count_spare(conn, book, credited)).items()):
        if spare < 0:
            asset = await get_asset(conn, code)
            raise NotCovered(
                f"clients would be owed {asset.format(-spare)} more than is held for them",
                remedy="Move house coins into a wallet of class client first",
            )
