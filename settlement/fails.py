"""What was due and is not final: noticed at its cut-off, rolled day by day, aged, cured when it is paid.

Nothing is posted: who owes, owes; a released instruction awaits its receipt for as long as it takes, and
the hold on our leg stays. What rolls is the value date by which the money is expected now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from registry.calendars import CALENDARS_VERSION, AnyCalendar
from registry.kept_calendars import find_calendars
from registry.model import Operator, Role
from registry.people import require_operator
from settlement import fail_store
from settlement.ageing import age_of, calendars_for, late_from, next_value_date
from settlement.fail_model import Fail
from settlement.fail_store import to_fail
from settlement.model import Instruction
from settlement.steps import INSTRUCTION, SYSTEM, Why, instruction_payload
from trading.terms.value_dates import Kept, countries_of, describe_calendars

CAUSE_MAX: Final = 200


async def note_fails(conn: AsyncConnection, *, book: int, now: datetime) -> list[Fail]:
    """Notice what is late, roll what still is, and end what was paid since; return what is new.

    Call it as often as you like: each instruction is late once, and rolled once for each cut-off.
    What had been paid, and was taken back since, is late as it was before.
    """
    await fail_store.cure_fails(conn, book, now=now)
    await _roll(conn, book, now)
    late: dict[UUID, Instruction] = {}
    rows: list[dict[str, Any]] = []
    unfinished = await fail_store.list_unfinished(conn, book, due_by=now.date())
    kept = await _kept(conn, [item for item, _ in unfinished])
    for item, due_on in unfinished:
        calendars = calendars_for(item.asset, item.rail, kept)
        if late_from(due_on, calendars) <= now:
            late[item.id] = item
            rows.append(_row(item, book, due_on, calendars, now))
    new = set(await fail_store.insert_fails(conn, rows))
    for row in rows:
        if row["instruction_id"] in new:
            item = late[row["instruction_id"]]
            why = Why(SYSTEM, f"due on {row['due_on']}, not final", now)
            await _tell(conn, item, "InstructionLate", row["value_date"], why)
    return [item for item in await list_fails(conn, book, now=now) if item.instruction_id in new]


async def list_fails(
    conn: AsyncConnection, book: int, *, now: datetime, aged: int = 0, cured: bool = False
) -> list[Fail]:
    """Return what is late, the oldest due first.

    Args:
        aged: only what is so many business days old, or more.
        cured: also what was paid since.
    """
    rows = await fail_store.list_fails(conn, book, cured=cured)
    kept = await _kept(conn, [item for _, item in rows])
    found = [_aged(row, item, kept, now) for row, item in rows]
    return [item for item in found if item.age >= aged]


async def note_cause(
    conn: AsyncConnection,
    instruction_id: UUID,
    cause: str,
    *,
    book: int,
    by: Operator,
    now: datetime,
) -> Fail:
    """Write down what people found out about a fail.

    Raises:
        Refused: it is not late.
        BadInput: a cause that says nothing, or too much.
    """
    if not 0 < len(cause.strip()) <= CAUSE_MAX:
        raise BadInput(f"a cause has 1 to {CAUSE_MAX} characters")
    operator = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS, Role.FINANCE)
    found = await fail_store.list_fails(conn, book, only={instruction_id}, lock=True)
    if not found:
        raise Refused(f"instruction {instruction_id} is not late", where=f"book {book}")
    row, item = found[0]
    await fail_store.update_fail(conn, instruction_id, cause=cause)
    why = Why(operator.code, cause, now)
    await _tell(conn, item, "FailExplained", row.value_date, why)
    (after,) = await fail_store.list_fails(conn, book, only={instruction_id})
    return _aged(after[0], item, await _kept(conn, [item]), now)


async def _roll(conn: AsyncConnection, book: int, now: datetime) -> None:
    rows = await fail_store.list_fails(conn, book, lock=True)
    kept = await _kept(conn, [item for _, item in rows])
    for row, item in rows:
        calendars = calendars_for(item.asset, item.rail, kept)
        if late_from(row.value_date, calendars) > now:
            continue
        rolled = next_value_date(row.value_date, now, calendars)
        await fail_store.update_fail(conn, item.id, value_date=rolled, rolls=row.rolls + 1)
        why = Why(SYSTEM, f"not final on {row.value_date}", now)
        await _tell(conn, item, "ValueDateRolled", rolled, why)


def _row(
    item: Instruction, book: int, due_on: date, calendars: frozenset[AnyCalendar], now: datetime
) -> dict[str, Any]:
    return {
        "instruction_id": item.id,
        "book": book,
        "due_on": due_on,
        "value_date": next_value_date(due_on, now, calendars),
        "calendars": describe_calendars(calendars).partition(":")[2],
        "calendars_version": CALENDARS_VERSION,
        "rolls": 0,
        "cause": "",
        "noticed_at": now,
    }


def _aged(row: Row[Any], item: Instruction, kept: Kept, now: datetime) -> Fail:
    calendars = calendars_for(item.asset, item.rail, kept)
    return to_fail(row, item, age_of(row.due_on, now.date(), calendars))


async def _kept(conn: AsyncConnection, items: Sequence[Instruction]) -> Kept:
    return await find_calendars(conn, countries_of({item.asset for item in items}))


async def _tell(
    conn: AsyncConnection, item: Instruction, name: str, value_date: date, why: Why
) -> None:
    event = DomainEvent(
        entity_type=INSTRUCTION,
        entity_id=item.id,
        version=await next_version(conn, INSTRUCTION, item.id),
        name=name,
        at=why.now,
        actor=why.by,
        reason=why.reason,
        from_state=item.state,
        to_state=item.state,
        payload=instruction_payload(item) | {"value_date": value_date.isoformat()},
    )
    await record(conn, [event])
