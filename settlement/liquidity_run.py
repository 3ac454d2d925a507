"""What can settle with what is held: gathered, chosen, and kept for ever.

Only the first and the last of four steps need a transaction: `read_payable` reads what could be paid
and what there is, `gather` makes the inputs of it, `choose_release` decides (given its solvers) and
`draft_plan` verifies the choice in integers, `record_plan` keeps it. A replay reads the choice and never
solves again, because a solver stopped by its time may choose otherwise on another machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.ids import derive_id
from settlement import release_store
from settlement.errors import NotCovered
from settlement.funding import list_places
from settlement.model import Direction, Instruction, Run, RunState
from settlement.netting.exact import BUILT_IN
from settlement.netting.liquidity import choose
from settlement.netting.model import Account, Choice, Method, Movement, Payment, Solvers
from settlement.netting.verification import verify_choice
from settlement.places import COVER, Asked, Place, asked_of, assign
from settlement.release_model import BookSettlement, PlanInputs, ReleasePlan
from settlement.value_against_value import OPEN, is_payment, judge, received_of
from trading.terms.model import Rail

OUTSIDE: Final = "outside"
"""Who is paid from a place of ours: not watched, and able to take anything."""
SHARE: Final = 1_000_000_000
"""Where payments of several assets are chosen at once, each is worth its share of all that is asked of
its asset, in billionths: there is no price in a settlement."""
TIME_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Payable:
    """What was read at one instant: every instruction of the runs, and the places that pay."""

    items: Sequence[Instruction]
    places: Sequence[Place]


async def read_payable(conn: AsyncConnection, book: int, run_ids: Collection[UUID]) -> Payable:
    """Return what could be paid of the runs, and what each place has to promise."""
    items = await release_store.list_instructions_of(conn, run_ids)
    moving = [i for i in items if i.state in OPEN and (i.rail is Rail.BOOK or is_payment(i, OPEN))]
    return Payable(items, await list_places(conn, book, _asked(moving)))


def gather(found: Payable, book: int, scope: UUID, *, on: date) -> PlanInputs:
    """Return what a release is chosen from.

    Args:
        found: what was read.
        scope: the cycle of the runs, or the run itself where it has none.
        on: the value date of the runs, for the order of what is paid.
    """
    items, places = found.items, found.places
    theirs = received_of(items)
    payable = [item for item in items if is_payment(item, OPEN)]
    asked = _asked(payable)
    sides = _by_book(items)
    book_asked = _asked([item for side in sides.values() for item in side])
    chosen = assign(asked, places)
    worth = _worth([*asked, *book_asked])
    payments = [
        _payment(item, place, worth, on) for item, place in zip(payable, chosen, strict=True)
    ]
    payments += [_book_payment(key, side, worth, on) for key, side in sorted(sides.items())]
    return PlanInputs(
        book=book,
        scope=scope,
        payments=tuple(payments),
        sources={str(i.id): place.location for i, place in zip(payable, chosen, strict=True)},
        classes={
            str(i.id): int(judge(i, theirs.get((i.run_id, i.party), ())).cover is None)
            for i in payable
        },
        funds={(p.location, p.asset): max(0, p.available) for p in places},
    )


def choose_release(
    inputs: PlanInputs,
    *,
    method: Method,
    time_limit_s: float = TIME_LIMIT_S,
    solvers: Solvers = BUILT_IN,
) -> Choice:
    """Choose which payments settle with what there is."""
    if method is Method.PARTIAL:
        # A book settlement is a trade of several sides, and none of them settles in part.
        method = _partial_or_fifo(inputs)
    return choose(
        inputs.payments,
        inputs.funds,
        _limits(inputs),
        method=method,
        time_limit_s=time_limit_s,
        priority=inputs.classes,
        solvers=solvers,
    )


def draft_plan(inputs: PlanInputs, choice: Choice, *, by: str, now: datetime) -> ReleasePlan:
    """Return a choice that can be paid, as `record_plan` takes it: without its number.

    Raises:
        NotCovered: somebody's arithmetic is wrong: it would leave a place below zero.
    """
    require_payable(inputs, choice)
    digest = inputs.hash
    return ReleasePlan(
        id=derive_id(now, "release-plan", inputs.scope, digest),
        book=inputs.book,
        scope=inputs.scope,
        number=0,
        choice=choice,
        input_hash=digest,
        inputs=inputs.to_json(),
        by=by,
        at=now,
    )


async def record_plan(conn: AsyncConnection, draft: ReleasePlan) -> ReleasePlan:
    """Keep a drafted choice, and return it; who chose from the same before, was first."""
    await release_store.lock_scope(conn, draft.scope)
    newest = await release_store.find_newest_plan(conn, draft.scope)
    if newest is not None and newest.input_hash == draft.input_hash:
        return newest
    plan = replace(draft, number=1 if newest is None else newest.number + 1)
    await release_store.insert_plan(conn, plan)
    return plan


def require_payable(inputs: PlanInputs, choice: Choice) -> None:
    """Refuse a choice that what there is does not cover, by integers alone."""
    try:
        short = verify_choice(inputs.payments, inputs.funds, _limits(inputs), choice)
    except ValueError as error:
        raise BadInput(f"the choice is not one of these payments: {error}") from error
    if short:
        first = short[0]
        place, asset = first.account
        raise NotCovered(
            f"the choice would leave {place} short of {first.short} units of {asset}",
            remedy="Plan again with what is there now",
        )


async def list_plans(conn: AsyncConnection, scope: UUID) -> list[ReleasePlan]:
    """Return the plans of a cycle, or of a run that has none, in the order of their numbers."""
    return await release_store.list_plans(conn, scope=scope)


async def find_newest_plan(conn: AsyncConnection, scope: UUID) -> ReleasePlan | None:
    """Return the last plan of a cycle, or of a run that has none; None before the first."""
    return await release_store.find_newest_plan(conn, scope)


async def get_plan(conn: AsyncConnection, plan_id: UUID) -> ReleasePlan:
    """Return a plan.

    Raises:
        BadInput: there is none.
    """
    found = await release_store.list_plans(conn, only=plan_id)
    if not found:
        raise BadInput(f"there is no release plan {plan_id}")
    return found[0]


def replay_plan(plan: ReleasePlan) -> Choice:
    """Return the stored choice after proving that it follows from its stored inputs.

    A FIFO set is unique, so it is found again; any other choice is verified and never solved anew.

    Raises:
        BadInput: the inputs do not have their hash, or the choice is not of them.
        NotCovered: it could not have been paid.
    """
    inputs = inputs_of(plan)
    if inputs.hash != plan.input_hash:
        raise BadInput(f"the inputs of release plan {plan.id} are not those it was made from")
    require_payable(inputs, plan.choice)
    if plan.choice.method == Method.FIFO:
        again = choose_release(inputs, method=Method.FIFO)
        if again.chosen != plan.choice.chosen:
            raise BadInput(f"release plan {plan.id} is not the set that the order gives")
    return plan.choice


def inputs_of(plan: ReleasePlan) -> PlanInputs:
    """Return the inputs that a plan was made from."""
    payments = [
        Payment(
            id=item["id"],
            movements=tuple(
                Movement(payer, payee, asset, int(amount))
                for payer, payee, asset, amount in item["movements"]
            ),
            value=int(item["value"]),
            order_key=(date.fromisoformat(item["order"][0]), item["order"][1]),
        )
        for item in plan.inputs["payments"]
    ]
    return PlanInputs(
        book=plan.book,
        scope=plan.scope,
        payments=tuple(payments),
        sources={p["id"]: p["source"] for p in plan.inputs["payments"] if p["source"]},
        classes={p["id"]: p["class"] for p in plan.inputs["payments"]},
        funds={(place, asset): int(n) for place, asset, n in plan.inputs["funds"]},
    )


def scope_of(runs: Sequence[Run]) -> UUID:
    """Return what plans of these runs belong to: their cycle, or the one run without.

    Raises:
        BadInput: they have none in common.
    """
    scopes = {run.cycle_id or run.id for run in runs}
    if len(scopes) != 1:
        raise BadInput("a release is planned for one cycle at a time")
    return scopes.pop()


def payable_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of which something may leave."""
    return [run for run in runs if run.state in {RunState.SEALED, RunState.RELEASED}]


def _asked(items: Sequence[Instruction]) -> list[Asked]:
    return [found for item in items if (found := asked_of(item, item.remaining)) is not None]


def _by_book(items: Sequence[Instruction]) -> dict[str, list[Instruction]]:
    sides: dict[str, list[Instruction]] = {}
    for item in items:
        if item.rail is Rail.BOOK and item.state in OPEN:
            sides.setdefault(BookSettlement(item.run_id, item.party).key, []).append(item)
    return sides


def _worth(asked: Sequence[Asked]) -> Mapping[str, int]:
    """Return what all that is asked of each asset comes to; empty where it is one asset alone."""
    totals: dict[str, int] = {}
    for item in asked:
        totals[item.asset] = totals.get(item.asset, 0) + item.amount
    return totals if len(totals) > 1 else {}


def _value(amount: int, asset: str, worth: Mapping[str, int]) -> int:
    return max(1, amount * SHARE // worth[asset]) if worth else amount


def _payment(item: Instruction, place: Place, worth: Mapping[str, int], on: date) -> Payment:
    return Payment(
        id=str(item.id),
        movements=(Movement(place.location, OUTSIDE, item.asset, item.remaining),),
        value=_value(item.remaining, item.asset, worth),
        order_key=(on, str(item.id)),
    )


def _book_payment(
    key: str, sides: Sequence[Instruction], worth: Mapping[str, int], on: date
) -> Payment:
    movements = []
    for item in sides:
        gives = item.direction is Direction.RECEIVE
        payer = f"client:{item.party}" if gives else COVER
        movements.append(Movement(payer, OUTSIDE, item.asset, item.remaining))
    return Payment(
        id=key,
        movements=tuple(movements),
        value=sum(_value(i.remaining, i.asset, worth) for i in sides),
        order_key=(on, key),
    )


def _limits(inputs: PlanInputs) -> dict[Account, int | None]:
    """Return which accounts are not watched: whoever is outside can take anything."""
    assets = {move.asset for payment in inputs.payments for move in payment.movements}
    return {(OUTSIDE, asset): None for asset in assets}


def _partial_or_fifo(inputs: PlanInputs) -> Method:
    trades = any(len(payment.movements) > 1 for payment in inputs.payments)
    return Method.FIFO if trades else Method.PARTIAL
