"""What treasury's reports need to know of settlement and custody, as plain values of `reporting`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import ClaimKind, Payout, PayoutState
from custody.payouts import every_payout
from kernel.errors import Refused
from kernel.events import last_times
from ledger.model import TrialBalanceRow
from ledger.queries import trial_balance
from reporting.treasury.model import Due, Expected, FlowSource, Settled
from settlement.fails import list_fails
from settlement.model import (
    Direction,
    Instruction,
    InstructionState,
    NetItem,
    ObligationState,
    Run,
    RunState,
)
from settlement.queries import (
    every_obligation,
    list_calculations,
    list_instructions_of_runs,
    list_runs,
)
from settlement.steps import INSTRUCTION

ITEMS_MAX: Final = 200_000
"""Items of one report, at most: they are held in memory."""

HOUSE: Final = "house"
UNSEALED: Final = frozenset(
    {
        *(ObligationState.OPEN, ObligationState.CALCULATED, ObligationState.AFFIRMED),
        ObligationState.DISPUTED,
    }
)
MOVING: Final = frozenset({RunState.SEALED, RunState.RELEASED})
SEALED: Final = MOVING | {RunState.FINAL}
NOT_SENT: Final = frozenset(
    {
        *(PayoutState.RESERVED, PayoutState.PENDING_APPROVAL, PayoutState.APPROVED),
        *(PayoutState.ALLOCATED, PayoutState.SIGNED, PayoutState.CANCELLING),
        PayoutState.SECURITY_HOLD,
    }
)
"""Payouts whose coins are still where they are paid from."""


async def list_expected(conn: AsyncConnection, book: int, *, now: datetime) -> list[Expected]:
    """Return what is to move in and out of the house's own places.

    Obligations count in full until their run is sealed, then what is left of its net. A payment that has
    left its place is not expected any more, final or not. What is late counts on the day that it was
    rolled to. Withdrawals count today, where a place of the house's own pays them.

    Raises:
        Refused: more than `ITEMS_MAX`.
    """
    found = [
        Expected(
            source=FlowSource.OBLIGATION,
            reference=str(item.id),
            party=item.party,
            asset=item.asset,
            units=_signed(item.direction, item.amount),
            value_date=item.value_date,
        )
        async for item in every_obligation(conn, book, UNSEALED)
    ]
    own_places = await _own_places(conn, book)
    waiting = [item async for item in every_payout(conn, book=book, states=NOT_SENT)]
    unsent = {item.id for item in waiting}
    rolled = {x.instruction_id: x.value_date for x in await list_fails(conn, book, now=now)}
    async for run, item in _instructions(conn, book, MOVING):
        is_sent = item.payout_id is not None and item.payout_id not in unsent
        if item.remaining and item.state is not InstructionState.FINAL and not is_sent:
            found.append(_of_instruction(item, rolled.get(item.id, run.value_date)))
            _require_room(len(found))
    today = now.astimezone(UTC).date()
    found += [_of_payout(item, today) for item in waiting if _is_own(item, own_places)]
    _require_room(len(found))
    return found


async def list_available(conn: AsyncConnection, book: int) -> dict[str, int]:
    """Return what is in the house's own wallets and bank accounts by asset, whatever is reserved.

    What is reserved leaves by an expected movement (`list_expected`), which names it.
    """
    found: dict[str, int] = {}
    for row in await trial_balance(conn, book):
        if _is_own_place(row):
            found[row.asset] = found.get(row.asset, 0) + row.balance
    return found


async def list_due(conn: AsyncConnection, book: int) -> list[Due]:
    """Return everything that is owed either way and has not been settled.

    Raises:
        Refused: more than `ITEMS_MAX`.
    """
    found = [
        Due(
            reference=str(item.id),
            party=item.party,
            asset=item.asset,
            units=_signed(item.direction, item.amount),
            value_date=item.value_date,
            state=str(item.state),
        )
        async for item in every_obligation(conn, book, UNSEALED)
    ]
    async for run, item in _instructions(conn, book, MOVING):
        if item.remaining:
            found.append(
                Due(
                    reference=str(item.id),
                    party=item.party,
                    asset=item.asset,
                    units=_signed(item.direction, item.remaining),
                    value_date=run.value_date,
                    state=str(item.state),
                )
            )
            _require_room(len(found))
    _require_room(len(found))
    return found


async def list_settled(
    conn: AsyncConnection, book: int, *, first: date, last: date
) -> list[Settled]:
    """Return the net items of the sealed runs with a value date from *first* to *last*.

    Raises:
        Refused: more than `ITEMS_MAX`.
    """
    found: list[Settled] = []
    async for runs in _pages(conn, book, SEALED, first=first):
        mine = [run for run in runs if run.value_date <= last]
        calculations = await list_calculations(conn, mine)
        instructions = await list_instructions_of_runs(conn, [run.id for run in mine])
        final = await last_times(
            conn, INSTRUCTION, [x.id for x in instructions], InstructionState.FINAL
        )
        days = {
            (x.run_id, x.party, x.asset, x.direction): (x, final.get(x.id)) for x in instructions
        }
        found += [_settled(run, item, days) for run in mine for item in calculations[run.id].items]
        _require_room(len(found))
        if len(mine) < len(runs):
            break
    return found


def _settled(
    run: Run,
    item: NetItem,
    instructions: dict[tuple[UUID, str, str, Direction], tuple[Instruction, datetime | None]],
) -> Settled:
    known = instructions.get((run.id, item.party, item.asset, item.direction))
    paid, final_on = 0, None
    if known is not None:
        instruction, at = known
        paid = instruction.applied
        if at is not None and instruction.state is InstructionState.FINAL:
            final_on = at.astimezone(UTC).date()
    return Settled(
        party=item.party,
        asset=item.asset,
        value_date=run.value_date,
        gross_pay=item.gross_pay,
        gross_receive=item.gross_receive,
        net=item.amount,
        paid=paid,
        final_on=final_on,
    )


async def _instructions(
    conn: AsyncConnection, book: int, states: frozenset[RunState]
) -> AsyncIterator[tuple[Run, Instruction]]:
    async for runs in _pages(conn, book, states):
        by_id = {run.id: run for run in runs}
        for item in await list_instructions_of_runs(conn, by_id):
            yield by_id[item.run_id], item


async def _pages(
    conn: AsyncConnection, book: int, states: frozenset[RunState], *, first: date = date.min
) -> AsyncIterator[list[Run]]:
    """Give runs with a value date of *first* and later, by value date, a page at a time."""
    after = (first, UUID(int=0))
    while page := await list_runs(conn, book, states, after=after):
        yield page
        after = (page[-1].value_date, page[-1].id)


async def _own_places(conn: AsyncConnection, book: int) -> set[str]:
    rows: Sequence[TrialBalanceRow] = await trial_balance(conn, book)
    return {row.path.partition(":")[2] for row in rows if _is_own_place(row)}


def _is_own_place(row: TrialBalanceRow) -> bool:
    return row.owner == HOUSE and row.path.startswith(("custody:", "bank:"))


def _is_own(item: Payout, places: set[str]) -> bool:
    """Tell whether a payout takes from the house's own and no instruction speaks for it already."""
    kind = item.parsed_claim.kind
    return kind in {ClaimKind.CLIENT, ClaimKind.HELD} and item.source_wallet in places


def _of_instruction(item: Instruction, day: date) -> Expected:
    return Expected(
        source=FlowSource.INSTRUCTION,
        reference=str(item.id),
        party=item.party,
        asset=item.asset,
        units=_signed(item.direction, item.remaining),
        value_date=day,
    )


def _of_payout(item: Payout, today: date) -> Expected:
    return Expected(
        source=FlowSource.PAYOUT,
        reference=str(item.id),
        party=item.party or "",
        asset=item.asset,
        units=-item.amount,
        value_date=today,
    )


def _signed(direction: Direction, units: int) -> int:
    return units if direction is Direction.RECEIVE else -units


def _require_room(count: int) -> None:
    if count > ITEMS_MAX:
        raise Refused(f"the report is of more than {ITEMS_MAX} items", remedy="Ask for fewer days")
