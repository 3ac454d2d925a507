"""Held payments become payouts, each on a named ground: value against value, many in one transaction.

What waits says what for; what is refused (a frozen destination, a policy, a changed instruction) does
not hold up the others: the group that it is in moves nothing, and its halves are asked for again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.freezes import require_open
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import get_payout, request_payouts
from kernel.errors import BadInput, Refused
from ledger.posting import post, require_applied
from registry.model import Operator
from risk.settlement_limits import judge_settlement
from settlement import fail_store, release_store, store
from settlement.errors import NotReleasable, NotYet
from settlement.evidence import find_stale_matches
from settlement.holding import acting, open_earmarks, voiding
from settlement.model import Direction, Instruction, InstructionState, Run, RunState
from settlement.release_model import Earmark
from settlement.release_steps import Step, step_instructions
from settlement.standing import standing_for_all
from settlement.steps import RunStep, Why, record_runs
from settlement.value_against_value import Cover, Grounds, is_payment, judge, received_of
from trading.terms.model import StandingInstruction

PAYMENTS_MAX: Final = 500
"""Payouts requested in one transaction."""

RECEIPTS_MAX: Final = 500
"""Receipts that begin to be awaited in one transaction."""

ENDED: Final = frozenset(
    {
        PayoutState.FAILED_ON_CHAIN,
        PayoutState.REFUSED,
        PayoutState.REJECTED,
        PayoutState.CANCELLED,
        PayoutState.EXPIRED,
    }
)
"""States of a payout in which it has not paid and, as far as its rail is final, never will."""


DETAIL_MAX: Final = 400
"""Characters of what is kept about a ground."""


@dataclass(slots=True)
class Released:
    """What left, and what waits for what.

    Attributes:
        payouts: by instruction.
        waits: why the others wait, by instruction.
        refused: one of those that were asked for is refused, and none of them has left.
    """

    payouts: dict[UUID, UUID] = field(default_factory=dict)
    waits: dict[UUID, str] = field(default_factory=dict)
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Leaving:
    """A payment that may leave: from where, how much of it, on what ground."""

    item: Instruction
    run: Run
    location: str
    amount: int
    cover: Cover
    detail: str
    mark: Earmark | None


async def release_runs(
    conn: AsyncConnection, run_ids: Collection[UUID], *, by: Operator | None, now: datetime
) -> list[Run]:
    """Release sealed runs: receipts are awaited from now on, payments may follow.

    Runs that are released already are returned as they stand. Where there are more receipts than one
    transaction takes, `await_receipts` goes on; until then nothing is matched with the rest.

    Args:
        by: a treasurer, at any time; None: the clock, once the time to release has come and if the
            policy of the window lets it.

    Raises:
        Refused: a run is not sealed, or something is frozen. None of them is released then.
        NotYet: the clock comes too early.
    """
    runs = await store.lock_runs(conn, only=run_ids)
    who = await acting(conn, by, runs)
    sealed = [run for run in runs if run.state not in {RunState.RELEASED, RunState.FINAL}]
    for run in sealed:
        if run.state is not RunState.SEALED:
            raise Refused(f"run {run.id} is {run.state}", remedy="Only a sealed run is released")
        if by is None and run.release_at is not None and now < run.release_at:
            raise NotYet(f"run {run.id} is released by the clock at {run.release_at}")
    if not sealed:
        return runs
    await require_open(conn)
    moving = {run.id for run in sealed}
    await _await(conn, moving, who, now)
    await store.move_runs(conn, sealed, RunState.RELEASED)
    told = [RunStep(run, "RunReleased", RunState.RELEASED) for run in sealed]
    await record_runs(conn, told, Why(who, "", now))
    return [replace(r, state=RunState.RELEASED) if r.id in moving else r for r in runs]


async def await_receipts(
    conn: AsyncConnection, run_ids: Collection[UUID], *, by: Operator | None, now: datetime
) -> int:
    """Await more receipts of released runs; return how many, 0 where all of them are awaited."""
    runs = await store.lock_runs(conn, only=run_ids)
    who = await acting(conn, by, runs)
    return await _await(conn, {r.id for r in runs if r.state is RunState.RELEASED}, who, now)


async def _await(conn: AsyncConnection, run_ids: set[UUID], who: str, now: datetime) -> int:
    items = await release_store.lock_receipts(
        conn, run_ids, states={InstructionState.PLANNED}, by_book=False, limit=RECEIPTS_MAX
    )
    steps = [Step(item, InstructionState.RELEASED) for item in items]
    await step_instructions(conn, steps, Why(who, "awaiting a receipt", now))
    return len(steps)


async def release_ready(
    conn: AsyncConnection,
    run_ids: Collection[UUID],
    *,
    only: Collection[UUID],
    by: Operator | None,
    now: datetime,
) -> Released:
    """Make the payouts of what is held and may leave now: of all that may, or of none.

    Repeated, it goes on with what waited. The payouts still need their approvals in `custody`.

    Args:
        run_ids: released runs.
        only: payments of them, at most `PAYMENTS_MAX`.
        by: a treasurer; None: the clock, where the policy of the window says so.
    """
    locked = await store.lock_runs(conn, only=run_ids)
    if not locked:
        return Released()
    who = await acting(conn, by, locked)
    runs = {run.id: run for run in locked}
    held = await release_store.lock_payments(
        conn,
        [run.id for run in locked if run.state is RunState.RELEASED],
        {InstructionState.FUNDED},
        only=only,
        limit=PAYMENTS_MAX,
    )
    items = await release_store.lock_receipts(conn, runs, parties={item.party for item in held})
    done = Released()
    marks = {mark.instruction_id: mark for mark in await open_earmarks(conn, held)}
    grounds = await find_grounds(conn, held, items, book_of(locked), now=now)
    ready: list[Leaving] = []
    for item in held:
        found = grounds[item.id]
        if found.cover is None:
            done.waits[item.id] = _owes(item, found)
        else:
            mark = marks[item.id]
            ready.append(
                Leaving(
                    item,
                    runs[item.run_id],
                    mark.location,
                    mark.amount,
                    found.cover,
                    found.detail,
                    mark,
                )
            )
    await _try(conn, await _placed(conn, ready, done, now), done, who, now)
    return done


async def survey(
    conn: AsyncConnection, book: int, run_ids: Collection[UUID], *, now: datetime
) -> tuple[list[Instruction], dict[UUID, str]]:
    """Return the held payments that may leave, and what the others wait for.

    Nothing is locked: `release_ready` looks again.
    """
    items = await release_store.list_instructions_of(conn, run_ids)
    held = [item for item in items if is_payment(item, {InstructionState.FUNDED})]
    grounds = await find_grounds(conn, held, items, book, now=now)
    ready = [item for item in held if grounds[item.id].cover is not None]
    waits = {i.id: _owes(i, grounds[i.id]) for i in held if grounds[i.id].cover is None}
    return ready, waits


async def find_grounds(
    conn: AsyncConnection,
    payments: Sequence[Instruction],
    items: Sequence[Instruction],
    book: int,
    *,
    now: datetime,
) -> dict[UUID, Grounds]:
    """Return on what ground each of *payments* may leave, by all the *items* of their runs."""
    if not payments:
        return {}
    theirs = received_of(items)
    received = [item for item in items if item.direction is Direction.RECEIVE]
    stale = {m.instruction_id: m.receipt_id for m in await find_stale_matches(conn, received)}
    gone = {(i.run_id, i.party): (i, stale[i.id]) for i in received if i.id in stale}
    parties = {item.party for item in payments}
    stopped = {one.party: one for one in await fail_store.list_in_force(conn, book, parties)}
    found = {
        item.id: Grounds(None, (), f"{item.party} is in default: {stopped[item.party].reason}")
        if item.party in stopped
        else _without(*gone[item.run_id, item.party])
        if (item.run_id, item.party) in gone
        else judge(item, theirs.get((item.run_id, item.party), ()))
        for item in payments
    }
    return found | await _borne(conn, found, book, now)


async def _borne(
    conn: AsyncConnection, found: Mapping[UUID, Grounds], book: int, now: datetime
) -> dict[UUID, Grounds]:
    """Return those of the waiting payments for which a settlement limit bears what is owed."""
    answers: dict[tuple[str, str], str | None] = {}
    borne = {}
    for key, grounds in found.items():
        if grounds.cover is not None or not grounds.owing or grounds.detail:
            continue
        owed = sorted({(item.party, item.asset) for item in grounds.owing})
        for party, asset in owed:
            if (party, asset) not in answers:
                no = await judge_settlement(conn, book, party, asset, now=now)
                answers[party, asset] = None if no is None else str(no)
        if all(answers[one] is None for one in owed):
            words = "the settlement limit bears " + ", ".join(
                f"{item.remaining} of {item.asset}" for item in grounds.owing
            )
            borne[key] = Grounds(Cover.LIMIT, grounds.owing, words[:DETAIL_MAX])
    return borne


def book_of(runs: Iterable[Run]) -> int:
    """Return the book of runs that are released together.

    Raises:
        BadInput: they are of several books.
    """
    books = {run.book for run in runs}
    if len(books) != 1:
        raise BadInput(f"runs of {len(books)} books are not released together")
    return books.pop()


async def pay(
    conn: AsyncConnection, leaving: Sequence[Leaving], who: str, now: datetime
) -> dict[UUID, Payout]:
    """Make the payouts of payments that may leave: all, or none of them.

    Raises:
        Refused: one of them cannot be made.
    """
    requests = {}
    standing = await _standing(conn, leaving, now)
    for one in leaving:
        await require_ended(conn, one.item)
        requests[one.item.id] = _request(one, standing[one.item.id].destination, who)
    await _end_marks(conn, leaving, who, now)
    made = await request_payouts(conn, list(requests.values()), book=leaving[0].run.book, now=now)
    payouts = dict(zip(requests, made, strict=True))
    voids = voiding(
        [one.mark for one in leaving if one.mark is not None], {o.item.id: o.item for o in leaving}
    )
    if voids:
        require_applied(await post(conn, leaving[0].run.book, voids, now=now))
    await step_instructions(
        conn,
        [
            Step(
                one.item,
                InstructionState.RELEASED,
                f"{one.cover}: standing instruction {standing[one.item.id].version},"
                f" payout {payouts[one.item.id].id}",
                payout_id=payouts[one.item.id].id,
                standing_version=standing[one.item.id].version,
            )
            for one in leaving
        ],
        Why(who, "", now),
    )
    return payouts


async def _placed(
    conn: AsyncConnection, ready: Sequence[Leaving], done: Released, now: datetime
) -> list[Leaving]:
    """Return those of which it is known where they go; the others wait for people."""
    found = await standing_for_all(conn, [one.item for one in ready], on=now.date())
    refused = {key: str(no) for key, no in found.items() if isinstance(no, Refused)}
    done.waits.update(refused)
    return [one for one in ready if one.item.id not in refused]


async def _standing(
    conn: AsyncConnection, leaving: Sequence[Leaving], now: datetime
) -> dict[UUID, StandingInstruction]:
    """Return where each payment goes.

    Raises:
        Refused: of one of them nobody has said, or it has changed since its deals were made.
    """
    found = await standing_for_all(conn, [one.item for one in leaving], on=now.date())
    known = {}
    for key, answer in found.items():
        if isinstance(answer, Refused):
            raise answer
        known[key] = answer
    return known


async def require_ended(conn: AsyncConnection, item: Instruction) -> None:
    """Refuse a further attempt while the payout of the last one could still pay."""
    if item.payout_id is None:
        return
    payout = await get_payout(conn, item.payout_id)
    if payout.state in ENDED:
        return
    if payout.state is PayoutState.CONFIRMED and 0 < item.applied < item.amount:
        return  # It has paid its part, and this attempt is the rest.
    raise NotReleasable(
        f"payout {payout.id} of instruction {item.id} is {payout.state} and may still pay",
        remedy="Clear it up in custody first",
    )


async def _try(
    conn: AsyncConnection, group: Sequence[Leaving], done: Released, who: str, now: datetime
) -> None:
    """Pay a group, or note why nothing of it can leave together."""
    if not group:
        return
    try:
        async with conn.begin_nested():
            payouts = await pay(conn, group, who, now)
    except Refused as no:
        done.refused = True
        done.waits.update({one.item.id: str(no) for one in group})
        return
    done.payouts.update({key: payout.id for key, payout in payouts.items()})


async def _end_marks(
    conn: AsyncConnection, leaving: Sequence[Leaving], who: str, now: datetime
) -> None:
    """Keep the ground on which each leaves: of what was held, and of what leaves at once."""
    ends: Mapping[tuple[UUID, int], tuple[Cover | None, str]] = {
        (one.item.id, one.item.attempt): (one.cover, one.detail)
        for one in leaving
        if one.mark is not None
    }
    await release_store.end_earmarks(conn, ends, by=who, now=now)
    await release_store.insert_earmarks(
        conn, [_at_once(one, who, now) for one in leaving if one.mark is None]
    )


def _at_once(one: Leaving, who: str, now: datetime) -> Earmark:
    return Earmark(
        instruction_id=one.item.id,
        attempt=one.item.attempt,
        book=one.run.book,
        plan_id=None,
        location=one.location,
        asset=one.item.asset,
        amount=one.amount,
        hold_id=None,
        held_at=now,
        cover=one.cover,
        cover_detail=one.detail,
        ended_by=who,
        ended_at=now,
    )


def _request(one: Leaving, destination: str, by: str) -> PayoutRequest:
    # A reference of its own for each attempt: the payout of an earlier one can never be paid twice
    # under this one, and never be mistaken for it.
    return PayoutRequest(
        client_ref=f"settlement/{one.item.id}/{one.item.attempt}",
        rail=str(one.item.rail),
        claim=f"payable:{one.item.party}:netted",
        source_wallet=one.location,
        asset=one.item.asset,
        amount=one.amount,
        destination=destination,
        requested_by=by,
        reason=f"settlement run {one.run.window} of {one.run.value_date}",
    )


def _without(item: Instruction, receipt: UUID) -> Grounds:
    return Grounds(
        None,
        (item,),
        f"receipt {receipt}, which {item.party} had paid with, has vanished:"
        " take the match back, and await the receipt again",
    )


def _owes(item: Instruction, found: Grounds) -> str:
    if found.detail:
        return found.detail
    waits = ", ".join(f"{i.remaining} of {i.asset} ({i.id})" for i in found.owing)
    return f"{item.party} still owes {waits}"
