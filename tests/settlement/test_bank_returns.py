"""A payment of ours that its bank brings back is owed again, once, and only where settlement had paid it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.settlement import SettlementWorker
from banks.http_gateway import HttpGateway
from banks.simulator.testing import BankThread
from custody.banks.importing import import_file
from custody.banks.payment_views import list_returned
from settlement import instruction_store, store
from settlement.fail_model import PaymentReturn
from settlement.model import Direction, Instruction, InstructionState, Run, RunState
from settlement.returns import take_up_returns
from tests.custody.banks.pay_world import CLIENTS, World, make_world
from trading.terms.model import Rail

BOOK = 1


@pytest.fixture
async def world(engine: AsyncEngine) -> World:
    return await make_world(engine)


async def paid_by(world: World, payout_id: UUID, amount: int) -> UUID:
    """An instruction that the payout has paid for good."""
    run = Run(
        id=UUID(int=1),
        book=BOOK,
        value_date=date(2026, 1, 5),
        window="noon",
        state=RunState.CALCULATED,
        version=1,
        created_at=world.now,
    )
    item = Instruction(
        id=UUID(int=2),
        run_id=run.id,
        party="acme",
        asset="EUR",
        direction=Direction.PAY,
        amount=amount,
        applied=0,
        rail=Rail.BANK,
        state=InstructionState.PLANNED,
        attempt=1,
        payout_id=None,
        standing_version=None,
        evidence="",
        created_at=world.now,
    )

    async def work(conn: AsyncConnection) -> None:
        await store.insert_run(conn, run)
        await instruction_store.insert_instructions(conn, BOOK, [item])
        sent = replace(item, state=InstructionState.RELEASED)
        await instruction_store.move_instruction(conn, item, sent.state, payout_id=payout_id)
        final = InstructionState.FINAL
        await instruction_store.move_instruction(conn, sent, final, applied=amount)

    await world.run(work)
    return item.id


async def test_what_a_bank_brings_back_of_ours_is_owed_again_once(
    world: World, tmp_path: Path
) -> None:
    with BankThread(tmp_path, "--account", f"{CLIENTS.iban}:EUR:5000") as bank:
        bank.control("fault", kind="returned")
        world.door = HttpGateway(bank.url)
        payout, _ = await world.submitted()
        for _ in range(3):
            bank.control("end-of-day", days=1)
        files = {name: raw for name, raw in bank.files().items() if b"pain.002" not in raw}

    async def take_in(conn: AsyncConnection) -> None:
        for name, raw in files.items():
            await import_file(conn, raw, name=name, now=world.now)

    async def take_up(conn: AsyncConnection) -> list[PaymentReturn]:
        return await take_up_returns(conn, book=BOOK, now=world.now)

    await world.run(take_in)
    (line,) = await world.run(lambda conn: list_returned(conn, BOOK))
    assert line.payout_id == payout.id
    # Nobody's but custody's, as long as no instruction was paid with it.
    assert await world.run(take_up) == []

    item_id = await paid_by(world, payout.id, line.amount)
    worker = SettlementWorker(engine=world.engine, clock=world.clock, book=BOOK)
    (made,) = (await worker.turn()).returned

    assert (made.instruction_id, made.amount, str(made.kind)) == (item_id, line.amount, "returned")
    assert await world.run(take_up) == []
