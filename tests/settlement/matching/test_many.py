"""Many receipts at once: as many statements as few, no receipt twice, more than a statement may name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.errors import Refused
from kernel.events import list_history
from registry.errors import NotAuthorised
from settlement.instruction_store import list_instructions
from settlement.matching.by_hand import Share
from settlement.matching.model import Match
from settlement.matching.store import last_rounds, list_matches, taken_apart
from settlement.steps import INSTRUCTION
from tests.settlement.desk import BOOK, Desk
from tests.settlement.matching.bank_day import BankDay


@pytest.fixture
async def day(desk: Desk) -> BankDay:
    return await BankDay(desk).open()


@contextlib.contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    """Every statement that the engine executes meanwhile."""
    said: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_many_receipts_take_as_many_statements_as_few(day: BankDay) -> None:
    """All of one instruction: its steps are told one by one, and written once."""
    _, item = await day.awaiting(60_000)
    counts = []
    for number in (2, 60):
        for _ in range(number):
            day.pays(item, 100)
        await day.end_of_day()
        with counted(day.desk.engine) as said:
            assert len(await day.match()) == number
        counts.append(len(said))

    assert counts[0] == counts[1]
    assert await day.cents("suspense", "receivable") == {"receivable:acme:netted": 53_800}
    told = await day.desk.do(lambda conn: list_history(conn, INSTRUCTION, item.id))
    steps = [e.payload["applied"] for e in told if e.name == "ReceiptMatched"]
    assert steps == [str(100 * n) for n in range(1, 63)]


async def test_more_may_wait_than_a_statement_has_parameters(desk: Desk) -> None:
    """PostgreSQL takes 32,767."""
    ids = {UUID(int=n) for n in range(40_000)}

    async def nothing(conn: AsyncConnection) -> list[object]:
        return [
            await list_matches(conn, receipts=ids),
            await last_rounds(conn, ids),
            await taken_apart(conn, ids),
            await list_instructions(conn, only=ids),
        ]

    assert await desk.do(nothing) == [[], {}, set(), []]


async def test_a_person_and_the_rules_at_once_match_a_receipt_once(day: BankDay) -> None:
    _, item = await day.awaiting(60_000)
    day.pays(item, 60_000)
    await day.end_of_day()
    (receipt,) = await day.waiting()

    async def by_hand() -> list[Match]:
        try:
            return await day.by_hand(receipt, Share(instruction_id=item.id, amount=60_000))
        except (Refused, NotAuthorised):
            return []

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(by_hand()), group.create_task(by_hand())]
        tasks += [group.create_task(day.match()) for _ in range(3)]

    assert len([match for task in tasks for match in task.result()]) == 1
    assert await day.cents("suspense", "receivable") == {}
    assert len(await day.desk.do(lambda conn: list_matches(conn, receipts={receipt.id}))) == 1
    assert [i.applied for i in await day.desk.do(lambda c: list_instructions(c, book=BOOK))] == [
        60_000
    ]
