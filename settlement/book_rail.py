"""The book rail: a prefunded client settles both sides here, in one commit of the ledger.

`accept_book` holds what the client gives and what it gets, `settle_book` posts both in one chain:
that commit is the finality. `cancel_book` lets go of what is held and not settled. Each takes a group of
clients in one transaction, all of them or none: whose group is refused asks for its halves
(`app.workers.cycle_release`).

Crediting a client by book makes the house owe it client money, so clients' holdings have to cover it
already (rule 6 of the account book): the house moves its coins into the client pool first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.freeze_model import find_match
from custody.freezes import load_freezes, refusal
from custody.model import client_account
from custody.payout_coverage import count_spare
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import BATCH_MAX, Transfer, chain, hold, post_hold, void_hold
from ledger.posting import post, require_applied
from ledger.queries import get_balances
from registry.model import Operator
from registry.queries import get_asset
from settlement import release_store, store
from settlement.defaults import require_not_defaulted
from settlement.errors import NotCovered, NotReleasable
from settlement.holding import PURPOSE, acting, require_released
from settlement.model import Direction, Instruction, InstructionState, Run
from settlement.places import COVER
from settlement.release_model import BookSettlement, Earmark
from settlement.release_steps import Step, step_instructions
from settlement.releasing import book_of
from settlement.steps import Why
from settlement.value_against_value import Cover

ASKED_MAX: Final = 100
"""Book settlements of one transaction: nobody else posts while they are settled."""
SIDES_MAX: Final = BATCH_MAX // 2
"""Sides of them together: a side has two accounts, and the ledger takes so many at once."""

ACCEPTABLE = frozenset({InstructionState.PLANNED, InstructionState.RESCHEDULED})
HELD = frozenset({InstructionState.RELEASED})
DONE = frozenset({InstructionState.FINAL})
FAILED = frozenset({InstructionState.FAILED})


@dataclass(frozen=True, slots=True)
class _Side:
    """One locked instruction of a book settlement, and its run."""

    item: Instruction
    run: Run

    def derive_id(self, verb: str) -> UUID:
        """Return the id of what this attempt posts."""
        return derive_id(self.run.created_at, verb, self.item.id, self.item.attempt)


_Group = Sequence[Sequence[_Side]]
"""The sides of each settlement."""


async def accept_book(
    conn: AsyncConnection, asked: Collection[BookSettlement], *, by: Operator | None, now: datetime
) -> list[Instruction]:
    """Hold both sides of prefunded parties' book settlements; nothing can spend them twice.

    What is held or settled already is returned as it stands.

    Args:
        asked: at most `ASKED_MAX`, of one cycle.

    Raises:
        NotCovered: a client has not enough of what it gives. Nothing is held then.
    """
    who, group = await _lock_book(conn, asked, by)
    moving = _moving(group, ACCEPTABLE, past=HELD | DONE, verb="accepted")
    sides = _sides(moving)
    if sides:
        book = book_of(side.run for side in sides)
        await _require_allowed(conn, book, sides)
        await _require_given(conn, book, sides)
        steps = [
            Step(side.item, InstructionState.RELEASED, hold_id=_hold_id(side)) for side in sides
        ]
        await step_instructions(conn, steps, Why(who, "held in the ledger", now))
        marks = [_mark(side, now) for side in sides if side.item.direction is Direction.PAY]
        await release_store.insert_earmarks(conn, marks)
        holds = _chained(moving, _hold)
        keys = {(path, one.asset) for one in holds for path in (one.debit, one.credit)}
        await ensure_accounts(conn, book, keys, now=now)
        require_applied(await post(conn, book, holds, now=now))
    return _after(group, moving, InstructionState.RELEASED)


async def settle_book(
    conn: AsyncConnection, asked: Collection[BookSettlement], *, by: Operator | None, now: datetime
) -> list[Instruction]:
    """Post both sides of each in one chain: this commit is the finality of book settlements.

    What is settled already is returned as it stands.

    Args:
        asked: at most `ASKED_MAX`, of one cycle.

    Raises:
        NotCovered: clients' holdings would not cover what clients are owed; all sides stay held.
    """
    who, group = await _lock_book(conn, asked, by)
    moving = _moving(group, HELD, past=DONE, verb="settled")
    sides = _sides(moving)
    if sides:
        book = book_of(side.run for side in sides)
        await _require_allowed(conn, book, sides)
        items = [side.item for side in sides]
        steps = [Step(item, InstructionState.FINAL, applied=item.amount) for item in items]
        await step_instructions(conn, steps, Why(who, "ledger commit", now))
        await _end_marks(conn, items, Cover.PREFUNDED, "ledger commit", who, now)
        require_applied(await post(conn, book, _chained(moving, _post), now=now))
        # Only now nobody else can change a balance: the ledger's head is locked until this commits.
        await _require_covered(conn, book, items)
    after = _after(group, moving, InstructionState.FINAL)
    return [replace(item, applied=item.amount) for item in after]


async def cancel_book(
    conn: AsyncConnection,
    asked: Collection[BookSettlement],
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> list[Instruction]:
    """Let go of both sides: the instructions have failed, and can be rescheduled.

    What has failed already is returned as it stands.

    Args:
        asked: at most `ASKED_MAX`, of one cycle.
    """
    who, group = await _lock_book(conn, asked, by)
    moving = _moving(group, HELD, past=FAILED, verb="cancelled")
    sides = _sides(moving)
    if sides:
        items = [side.item for side in sides]
        steps = [Step(item, InstructionState.FAILED) for item in items]
        await step_instructions(conn, steps, Why(who, reason, now))
        await _end_marks(conn, items, None, reason, who, now)
        book = book_of(side.run for side in sides)
        require_applied(await post(conn, book, _chained(moving, _void), now=now))
    return _after(group, moving, InstructionState.FAILED)


def _chained(group: _Group, make: Callable[[_Side], Transfer]) -> list[Transfer]:
    """Return a transfer for each side, those of one settlement in a chain."""
    return [one for sides in group for one in chain(*map(make, sides))]


def _hold(side: _Side) -> Transfer:
    """Return the hold of what the client gives, or of what it gets."""
    item, client = side.item, client_account(side.item.party)
    gives = item.direction is Direction.RECEIVE
    return hold(
        id=_hold_id(side),
        debit=client if gives else f"payable:{item.party}:netted",
        credit=f"receivable:{item.party}:netted" if gives else client,
        asset=item.asset,
        amount=item.amount,
        code="settlement.book.held",
        purpose=PURPOSE,
        correlation=item.id,
    )


def _post(side: _Side) -> Transfer:
    return post_hold(
        id=side.derive_id("book-post"),
        pending_id=_hold_id(side),
        code="settlement.book.settled",
        correlation=side.item.id,
    )


def _void(side: _Side) -> Transfer:
    return void_hold(
        id=side.derive_id("book-void"),
        pending_id=_hold_id(side),
        code="settlement.book.cancelled",
        correlation=side.item.id,
    )


async def _require_allowed(conn: AsyncConnection, book: int, sides: Sequence[_Side]) -> None:
    """Refuse where a party is in default, or anything is frozen."""
    await require_not_defaulted(conn, book, *{side.item.party for side in sides})
    freezes = await load_freezes(conn)
    for side in sides:
        found = find_match(freezes, asset=side.item.asset, client=side.item.party)
        if found is not None:
            raise refusal(found)


def _mark(side: _Side, now: datetime) -> Earmark:
    """Return the record of what is set aside; the hold itself is the instruction's own."""
    return Earmark(
        instruction_id=side.item.id,
        attempt=side.item.attempt,
        book=side.run.book,
        plan_id=None,
        location=COVER,
        asset=side.item.asset,
        amount=side.item.amount,
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


def _hold_id(side: _Side) -> UUID:
    return side.derive_id("book-hold")


async def _lock_book(
    conn: AsyncConnection, asked: Collection[BookSettlement], by: Operator | None
) -> tuple[str, _Group]:
    """Lock runs and sides; return who acts on them, and the sides of each settlement."""
    if len(asked) > ASKED_MAX:
        raise BadInput(
            f"{len(asked)} book settlements are too many for one transaction",
            remedy=f"Ask for {ASKED_MAX} at a time",
        )
    runs = {run.id: run for run in await store.lock_runs(conn, only={a.run_id for a in asked})}
    found = await release_store.lock_book_sides(conn, asked)
    for one, items in found.items():
        if not items:
            raise BadInput(f"run {one.run_id} has nothing of {one.party} to settle by book")
    count = sum(map(len, found.values()))
    if count > SIDES_MAX:
        raise NotReleasable(
            f"{len(asked)} book settlements have {count} sides, too many for one transaction",
            remedy=f"Ask for {SIDES_MAX} sides at a time",
        )
    who = await acting(conn, by, runs.values())
    return who, [[_Side(item, runs[item.run_id]) for item in items] for items in found.values()]


def _sides(group: _Group) -> list[_Side]:
    return [side for sides in group for side in sides]


def _moving(
    group: _Group,
    states: frozenset[InstructionState],
    *,
    past: frozenset[InstructionState],
    verb: str,
) -> list[Sequence[_Side]]:
    """Return the settlements that have not gone this far: every side where it should be, or none.

    Raises:
        NotReleasable: a side is elsewhere, or the run is not released.
    """
    moving = [sides for sides in group if not _all_in(sides, past)]
    for sides in moving:
        wrong = [side.item for side in sides if side.item.state not in states]
        if wrong:
            names = ", ".join(sorted(f"{item.asset} is {item.state}" for item in wrong))
            raise NotReleasable(
                f"the book settlement of {wrong[0].party} cannot be {verb}: {names}",
                remedy=f"It takes {' or '.join(sorted(states))}, on every side",
            )
    require_released(side.run for side in _sides(moving))
    return moving


def _all_in(sides: Iterable[_Side], states: frozenset[InstructionState]) -> bool:
    return all(side.item.state in states for side in sides)


def _after(group: _Group, moving: _Group, state: InstructionState) -> list[Instruction]:
    """Return every side as it stands once those that move have moved."""
    moved = {side.item.id for side in _sides(moving)}
    return [
        replace(side.item, state=state) if side.item.id in moved else side.item
        for side in _sides(group)
    ]


async def _require_given(conn: AsyncConnection, book: int, sides: Sequence[_Side]) -> None:
    """Say what a client lacks; the flag on its account is what refuses for certain."""
    given = [side.item for side in sides if side.item.direction is Direction.RECEIVE]
    keys = {(client_account(item.party), item.asset) for item in given}
    balances = await get_balances(conn, book, keys)
    available = {key: balance.available for key, balance in balances.items()}
    for item in given:
        key = client_account(item.party), item.asset
        available[key] = available.get(key, 0) - item.amount
        if available[key] < 0:
            asset = await get_asset(conn, item.asset)
            raise NotCovered(
                f"{item.party} is short of {asset.format(-available[key])}"
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
